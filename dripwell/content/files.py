"""Reads the files of one campaign, and nothing else: bounded in size and number, and never out of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dripwell.content.problems import SourceText, nearest
from dripwell.content.steps import keys_of_emails
from dripwell.content.yaml_source import read_yaml
from dripwell.core.errors import ContentError, NotFoundError

MAX_FILE_BYTES = 1_000_000
MAX_FILES = 500
_FOLDER_SUFFIXES = (".yaml", ".md")
_THEME_SUFFIXES = (".yaml", ".md", ".j2")


def campaign_names(root: Path) -> list[str]:
    """Return the names of the campaigns there are: the folders of `campaigns/` that hold a campaign.yaml."""
    return sorted(path.parent.name for path in (root / "campaigns").glob("*/campaign.yaml"))


def email_keys(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the keys of each campaign's emails, as far as its file can be read: what `clicked` may name."""
    found = {}
    for name in campaign_names(root):
        path = root / "campaigns" / name / "campaign.yaml"
        tree, _ = read_yaml(SourceText(path.relative_to(root).as_posix(), _text(path, root)))
        found[name] = keys_of_emails(tree)
    return found


def read_sources(root: Path, campaign: str) -> dict[str, str]:
    """Read the site, the segments, the campaign's folder and the email theme: path below `root` -> text.

    Bytes that are not UTF-8 are kept as lone surrogates and a file of the campaign that is too large is cut just
    behind the limit, so that `load` can say what is wrong with it. Raises NotFoundError when there is no such
    campaign, ContentError when a file leads out of its folder, the theme is too large, or there are too many files.
    """
    names = campaign_names(root)
    if campaign not in names:
        guess = nearest(campaign, names)
        known = f"campaigns you have: {', '.join(names)}" if names else "you have no campaigns yet"
        raise NotFoundError(
            f"there is no campaign `{campaign}` in campaigns/"
            + (f"; did you mean `{guess}`?" if guess else "")
            + f" ({known})"
        )
    paths = [
        *(path for path in (root / "config" / "site.yaml", root / "config" / "segments.yaml") if path.is_file()),
        *_files(root / "campaigns" / campaign, _FOLDER_SUFFIXES, deep=False),
        *_files(root / "templates" / "email", _THEME_SUFFIXES, deep=True),
    ]
    if len(paths) > MAX_FILES:
        raise ContentError(f"campaigns/{campaign} and the email theme have {len(paths)} files; {MAX_FILES} is the most")
    sources = {path.relative_to(root).as_posix(): _text(path, root) for path in paths}
    for path, text in sources.items():
        if path.startswith("templates/") and len(text) > MAX_FILE_BYTES // 2:
            raise ContentError(f"{path} is too large for a theme file; {MAX_FILE_BYTES // 2000} KB is the most")
    return sources


def _files(folder: Path, suffixes: tuple[str, ...], *, deep: bool) -> Iterator[Path]:
    for path in sorted(folder.glob("**/*" if deep else "*")):
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def _text(path: Path, root: Path) -> str:
    shown = path.relative_to(root).as_posix()
    if not path.resolve().is_relative_to(path.parent.resolve()) or not path.resolve().is_relative_to(root.resolve()):
        raise ContentError(f"{shown} is a link that leads out of its folder; put the file itself there")
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ContentError(f"{shown} cannot be read: {error.strerror or error}") from error
