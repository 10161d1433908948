"""Every command explains itself: three examples first, and a place in docs/reference/commands.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dripwell.cli.main import program, registered

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments)


def commands(found: dict[str, click.Command] | None = None, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in (found if found is not None else registered()).items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command.commands, f"{path}{name} ")


def leaves() -> dict[str, click.Command]:
    return {path: command for path, command in commands() if not isinstance(command, click.Group)}


def sections() -> dict[str, str]:
    """Command path -> text of its section in the reference."""
    parts = re.split(r"^### `dripwell ([^`]+)`$", PAGE, flags=re.M)
    paths = [" ".join(word for word in title.split() if word.islower()) for title in parts[1::2]]
    return dict(zip(paths, parts[2::2], strict=True))


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    assert set(sections()) == set(leaves())


@pytest.mark.parametrize("path", sorted(leaves()))
def test_every_option_of_a_command_is_documented_and_no_other(path: str) -> None:
    params = [one for one in leaves()[path].params if isinstance(one, click.Option)]
    options = {name for option in params for name in option.opts if name.startswith("--")}
    told = set(re.findall(r"^\| `(--[a-z-]+)", sections()[path], flags=re.M))
    assert told == options - {"--help"}


@pytest.mark.parametrize("path", sorted(path for path, _ in commands()))
def test_help_starts_with_examples_and_one_sentence_stands_in_the_list(path: str) -> None:
    result = run(*path.split(), "--help")
    assert result.exit_code == 0
    words = result.output.split("\n\n")
    examples = words[1].splitlines()
    assert len(examples) >= 2
    assert all("dripwell" in line for line in examples)
    told = "\n\n".join(words[2:]).partition("Options:")[0].partition("Commands:")[0]
    assert "\n\n\n" not in told.strip()
    assert not re.search(r"\S {2,}\S", told), "a line of the source left its indentation in the words"
    assert dict(commands())[path].get_short_help_str(200)


def test_a_misspelled_command_gets_a_suggestion_and_exit_code_2() -> None:
    result = run("aply")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: No such command 'aply'. Did you mean 'apply'?")
    assert result.stdout == ""


def test_a_misspelled_subcommand_and_option_get_a_suggestion() -> None:
    assert "Did you mean 'show'?" in run("subscribers", "shw", "a@example.com").stderr
    assert "Did you mean '--json'?" in run("status", "--jsn").stderr


def test_a_missing_argument_names_the_help_of_its_command() -> None:
    result = run("apply")
    assert result.exit_code == 2
    assert result.stderr.endswith("See: dripwell apply --help\n")


def test_version_is_printed() -> None:
    assert run("--version").output.startswith("dripwell, version ")


def test_no_command_at_all_shows_help_and_exits_with_2() -> None:
    result = run()
    assert result.exit_code == 2
    assert "dripwell demo --once" in result.output


@pytest.mark.parametrize("arguments", [("plan",), ("status",), ("subscribers", "show", "a@example.com"), ("schema",)])
def test_outside_a_project_nothing_is_started_or_written(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: config/site.yaml is not here: run Dripwell from the folder that holds")
    assert list(tmp_path.iterdir()) == []
