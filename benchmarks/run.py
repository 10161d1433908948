"""Run the script of each figure in turn, print all figures and write them to benchmarks/RESULTS.md.

    python benchmarks/run.py            everything, as the table in the repository was made: about two hours
    python benchmarks/run.py --quick    small sizes, under ten minutes: whether everything still works
    python benchmarks/run.py --only g i

`--quick` and `--only` print and write nothing. A script that fails, or takes too long, is shown as failed; the exit
code is then 1. A figure that misses its bar is shown as such and is no failure: the table is there to be believed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ground import ROOT, Watch, machine

RESULTS = ROOT / "benchmarks" / "RESULTS.md"


@dataclass(frozen=True)
class Script:
    """One file; the figures it measures unless its lines say otherwise, and how many minutes it may take."""

    name: str
    letter: str
    minutes: float


SCRIPTS = (
    Script("render.py", "a", 5),
    Script("send.py", "a", 15),
    Script("plan.py", "c", 90),
    Script("unsubscribe.py", "d", 10),
    Script("clicks.py", "e", 10),
    Script("events.py", "f", 15),
    Script("memory.py", "g", 35),
    Script("confirm.py", "h", 15),
    Script("recovery.py", "i", 10),
    Script("imports.py", "j", 45),
    Script("segments.py", "k", 4),
)


@dataclass(frozen=True)
class Figure:
    """One line of a script, as `ground.line` prints it."""

    letter: str
    name: str
    value: str
    unit: str
    ratio: str
    verdict: str
    note: str

    @property
    def row(self) -> str:
        """A row of the table."""
        bar = {"BELOW": f"**missed** ({self.verdict[6:]})", "meets": f"met ({self.verdict[6:]})"}
        cells = (self.ratio, self.letter, self.name, self.value, self.unit, bar.get(self.verdict[:5], ""), self.note)
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Outcome:
    """What became of one script; `problem` is empty when it went well."""

    script: Script
    figures: tuple[Figure, ...]
    problem: str


LINE = re.compile(
    r"\s*(?P<ratio>-|[\d.e+-]+)  (?P<verdict>(?:meets|BELOW) \S+|no bar)\s*  (?:\((?P<letter>[a-j])\) )?(?P<name>\S.*?)"
    r"\s{2,}(?P<value>-?[\d.,e+]+)  (?P<unit>\S.*?)(?:\s{2,}(?P<note>.*))?"
)


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="LETTER", help="the scripts of these figures")
    given = parser.parse_args()
    scripts = [script for script in SCRIPTS if not given.only or script.letter in given.only]
    outcomes = [_run(script, ["--quick"] if given.quick else []) for script in scripts]
    failed = [outcome for outcome in outcomes if outcome.problem]
    print(f"\n{machine()}\n")
    print("\n".join(_table(outcomes)))
    if not given.quick and not given.only:
        RESULTS.write_text(_page(outcomes), encoding="utf-8")
        print(f"\nwritten to {RESULTS.relative_to(ROOT)}")
    return 1 if failed else 0


def read(text: str, script: Script) -> tuple[Figure, ...]:
    """The figures among what a script printed."""
    found = [match for match in map(LINE.fullmatch, text.splitlines()) if match]
    return tuple(
        Figure(**{**{key: value or "" for key, value in match.groupdict().items()},
                  "letter": match["letter"] or script.letter})
        for match in found
    )  # fmt: skip


def _run(script: Script, options: Sequence[str]) -> Outcome:
    print(f"\n— {script.name} {' '.join(options)}".rstrip(), flush=True)
    command = [sys.executable, str(ROOT / "benchmarks" / script.name), *options]
    watch = Watch()
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = running.communicate(timeout=script.minutes * 60)
        problem = "" if running.returncode == 0 else f"failed with exit code {running.returncode}"
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)  # so that it takes its servers and its folder along
        said, _ = _the_end(running)
        problem = f"failed: not done after {script.minutes:g} minutes"
    print(said, end="")
    figures = read(said, script)
    problem = problem or ("" if figures else "failed: it printed no figure")
    print(problem or f"({watch.seconds():.0f} s)", flush=True)
    return Outcome(script, figures, problem)


def _the_end(running: subprocess.Popen[str]) -> tuple[str, str | None]:
    try:
        return running.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # a group of its own
        return running.communicate()


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    rows = [(figure.letter, figure.row) for outcome in outcomes for figure in outcome.figures]
    rows += [
        (
            outcome.script.letter,
            f"| failed | {outcome.script.letter} | {outcome.script.name} |  |  |  | {outcome.problem} |",
        )
        for outcome in outcomes
        if outcome.problem
    ]
    head = ["| ratio |  | figure | value | unit | bar | note |", "|---:|---|---|---:|---|---|---|"]
    return head + [row for _, row in sorted(rows, key=lambda row: row[0])]


def _page(outcomes: Sequence[Outcome]) -> str:
    commit = _git("log", "-1", "--format=%cs, commit %h")
    changed = (
        " with changes that are not committed" if _git("status", "--porcelain", "--", "dripwell", "workers") else ""
    )
    return "\n".join(
        [
            "# Figures",
            "",
            f"Measured on {machine()}, all on this one machine. State of {commit}{changed}.",
            "What each one means and how to read it: [docs/reference/benchmarks.md](../docs/reference/benchmarks.md).",
            "A ratio is made so that more is better; where there is a bar, it says what the ratio has to reach.",
            "",
            *_table(outcomes),
            "",
            "Again: `make bench` writes this file (about two hours), `make bench BENCH=--quick` only prints small",
            "sizes, and each script in `benchmarks/` runs alone; `--help` says what it does.",
            "",
        ]
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
