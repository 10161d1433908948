"""From a folder and an environment to an open installation, and who is asking."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import click

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli.output import is_terminal, to_stderr
from dripwell.content.lint_site import invented_facts
from dripwell.content.load import load_site
from dripwell.content.places import SEGMENTS, SITE
from dripwell.core.address import check
from dripwell.core.errors import ConfigurationError
from dripwell.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def project() -> Path:
    """The folder with campaigns/, config/ and templates/. Elsewhere a ConfigurationError, before a server starts."""
    root = Path.cwd()
    if not (root / "config" / "site.yaml").is_file():
        raise ConfigurationError(
            "config/site.yaml is not here: run Dripwell from the folder that holds campaigns/, config/ and templates/, "
            f"not from {root}."
        )
    return root


@contextmanager
def opened() -> Iterator[Installation]:
    """The installation of this folder and environment; servers that had to be started end with the command."""
    root = project()
    settings = Settings.read()
    waiting = to_stderr().status("opening the record …") if is_terminal() else nullcontext()
    waiting.__enter__()
    try:
        with bootstrap.opened(settings, root) as installation:
            waiting.__exit__(None, None, None)
            yield installation
    finally:
        waiting.__exit__(None, None, None)


def login_name() -> str:
    """Who sits at this terminal, for the activity log."""
    try:
        return os.getlogin()
    except OSError:  # no terminal: a script, a service
        return "command line"


def by_whom(command: F) -> F:
    """Give a command `--by WHO`."""
    return click.option(
        "--by",
        "actor",
        metavar="WHO",
        default=login_name,
        show_default="your login name",
        help="Who does this, for the activity log.",
    )(command)


class Address(click.ParamType[str]):
    """An email address, refused with a sentence when it is none."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the address as the rest of Dripwell does."""
        try:
            return check(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not an email address: {error}", param, ctx)


ADDRESS = Address()


class Words(click.ParamType[str]):
    """Words for the activity log. Nothing but blanks and dots tells nobody anything later."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The words without the blanks around them."""
        if not any(letter.isalnum() for letter in str(value)):
            self.fail("write words: whoever reads the log later wants to know why", param, ctx)
        return str(value).strip()


WORDS = Words()


class RowId(click.IntRange):
    """A number as the record counts rows: a PostgreSQL bigint from 1."""

    def __init__(self) -> None:
        """From 1 to the last number that a row can have."""
        super().__init__(min=1, max=2**63 - 1)


ROW_ID = RowId()


def ready_to_mail(settings: Settings, root: Path) -> None:
    """For whatever mails or serves: raise ConfigurationError when a live provider is set and something is missing.

    That is a secret, the webhook's key, or a fact of `config/site.yaml` that is still invented: service emails need no
    campaign to be started, so they would go out with it.
    """
    if not settings.live:
        return
    settings.check_live()
    try:
        sources = {
            path: (root / path).read_text(encoding="utf-8") for path in (SITE, SEGMENTS) if (root / path).is_file()
        }
    except UnicodeDecodeError:
        return  # told, like every error in these files, where they are opened
    site, _ = load_site(sources)
    invented = [] if site is None else invented_facts(site)
    if invented:
        raise ConfigurationError(
            f"config/site.yaml still has placeholders, and {settings.live_by} is set, so real people would get them: "
            f"{', '.join(invented)}. Write what is true, or unset {settings.live_by} to go on in the sandbox."
        )
