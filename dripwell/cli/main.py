"""The `dripwell` command: its groups of commands, and what each error means for whoever called it."""

from __future__ import annotations

import importlib
import inspect
import io
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from dripwell.cli.output import kind_of, note, print_error
from dripwell.core.errors import DripwellError

REGISTRY = (
    "writing",
    "publishing",
    "life",
    "subscribers",
    "importing",
    "exporting",
    "rights",
    "segments",
    "forms",
    "bounces",
    "suppressions",
    "calls",
    "held",
    "brakes",
    "quarantine",
    "keys",
    "numbers",
    "events",
    "clock",
    "run",
    "demo",
)
"""The modules of this package that hold commands, each in a list `commands`; in the order that help shows."""

DONE, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


class Program(click.Group):
    """The whole command. It imports its modules when it must, and turns every error into sentences and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line and exit."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        try:
            code = super().main(given, "dripwell", complete_var, standalone_mode=False, **extra)
        except DripwellError as error:
            kind = kind_of(error)
            code = REFUSED if kind == "refused" else FAILED
            print_error(str(error), kind, as_json=as_json)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = USAGE
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else "dripwell"
            print_error(f"{error.format_message()}\nSee: {path} --help", "usage", as_json=as_json)
            code = USAGE
        except click.ClickException as error:
            print_error(error.format_message(), "failed", as_json=as_json)
            code = FAILED
        except click.Abort:
            note("stopped")
            code = INTERRUPTED
        except Exception as error:
            print_error(_unexpected(error), "failed", as_json=as_json)
            code = FAILED
        sys.exit(code if isinstance(code, int) else DONE)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the registry."""
        return list(registered())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return registered().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest."""
        self.commands = registered()
        return super().resolve_command(ctx, args)


@cache
def registered() -> dict[str, click.Command]:
    """Every command by name."""
    found: dict[str, click.Command] = {}
    for name in REGISTRY:
        module = importlib.import_module(f"dripwell.cli.{name}")
        for command in module.commands:
            _examples_first(command)
            found[command.name] = command
    return found


def _examples_first(command: click.Command) -> None:
    """Put the `\\b` paragraph of a command's help, its examples, before the words; groups in depth."""
    words, mark, examples = (command.help or "").partition("\b\n")
    if mark:
        # The one-line help in lists comes from the words, which stand first in the source.
        command.short_help = command.short_help or _first_sentence(words)
        examples, _, more = examples.partition("\n\n")
        parts = (f"\b\n{examples.rstrip()}", inspect.cleandoc(words.strip()), inspect.cleandoc(more.strip()))
        command.help = "\n\n".join(part for part in parts if part)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _examples_first(inner)


def _first_sentence(words: str) -> str:
    return " ".join(words.split()).partition(". ")[0].rstrip(".")


def _unexpected(error: Exception) -> str:
    """What to report about a mistake of ours: its kind and the last line of Dripwell that it went through.

    Never its words: a driver repeats the values of its statement there, and these may be addresses.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "dripwell" in Path(frame.filename).parts] or frames
    place = f"{'/'.join(Path(ours[-1].filename).parts[-2:])}, line {ours[-1].lineno}" if ours else "an unknown place"
    return (
        f"this is a fault of Dripwell, not yours: {type(error).__name__} at {place}. Please report it with these words "
        "and the command, without addresses"
    )


def _version() -> str:
    try:
        return version("dripwell")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0 (not installed)"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(_version(), prog_name="dripwell")
def program() -> None:
    """Turn an article into a series of emails and send it to people who asked for it, once each.

    \b
    dripwell demo --once              watch the whole program work, with invented people
    dripwell lint                     check the files of every campaign
    dripwell plan seven-benefits      see what would change, and for whom
    """


_examples_first(program)


def main() -> None:
    """The entry point of `dripwell` and of `python -m dripwell.cli`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ✓ shows ?
    program()
