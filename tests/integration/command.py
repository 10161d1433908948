"""Runs `dripwell …` for tests: in this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from dripwell.cli.main import program
from tests.conftest import ROOT

CAMPAIGN = "seven-benefits"
TOPIC = "seven-part-series"
REVIEWER = "clinical-review@kcla.example"


@dataclass(frozen=True)
class Project:
    """A folder with the repository's campaigns, config and templates, and the environment of its commands."""

    root: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **changes: str) -> Result:
        """Run a command in this process; the caller stands in the folder."""
        result = CliRunner().invoke(program, arguments, env={**self.environment, **changes})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def read(self, *arguments: str, **changes: str) -> dict[str, Any]:
        """Run a command with --json and return its object; the exit code is 0."""
        result = self.run(*arguments, "--json", **changes)
        assert result.exit_code == 0, result.output
        value: dict[str, Any] = json.loads(result.stdout)
        assert value["version"] == 1
        return value

    def process(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **changes}
        return subprocess.Popen(
            [sys.executable, "-m", "dripwell.cli", *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts its background jobs deaf to Ctrl-C, and tests may be such a job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def started(self) -> None:
        """Apply, approve and start the campaign."""
        self.read("apply", CAMPAIGN)
        self.read("approve", CAMPAIGN, "--by", REVIEWER)
        self.read("start", CAMPAIGN)

    def added(self, address: str) -> None:
        """Add a subscriber who agreed."""
        self.read("subscribers", "add", address, "--topic", TOPIC, "--source", "a test")

    def edit(self, old: str, new: str, path: str = f"campaigns/{CAMPAIGN}/campaign.yaml") -> None:
        """Change a file of the project."""
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        (self.root / path).write_text(text.replace(old, new, 1), encoding="utf-8")


def copy_of_the_project(folder: Path, environment: dict[str, str]) -> Project:
    """A project in `folder`, with a state directory of its own."""
    for name in ("campaigns", "config", "templates"):
        shutil.copytree(ROOT / name, folder / name)
    return Project(folder, {"DRIPWELL_STATE_DIR": str(folder / "state"), **environment})
