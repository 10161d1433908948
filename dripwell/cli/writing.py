"""`lint`, `preview`, `schema`: for whoever writes campaigns. None of them needs a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from dripwell.cli import pictures
from dripwell.cli.opening import project
from dripwell.cli.output import Answer, Line, answers, clean, counted, number, table
from dripwell.content import schema as schemas
from dripwell.content.files import campaign_names, email_keys, read_sources
from dripwell.content.lint import lint_documents, lint_emails
from dripwell.content.lint_catalog import CATALOG
from dripwell.content.lint_staging import Passage, passages
from dripwell.content.load import load
from dripwell.content.problems import Problem, did_you_mean, show
from dripwell.content.render import Rendered, render_step
from dripwell.content.samples import SAMPLES
from dripwell.core.campaign import Campaign, Site
from dripwell.core.errors import ConfigurationError, ContentError, NotFoundError

ART = "templates/email/art"


@click.command()
@click.argument("target", metavar="[PATH|NAME]", required=False)
@click.option("--explain", metavar="CODE", help="Say what a code such as D301 means, and nothing else.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How to print.",
)
@click.option("--live", is_flag=True, help="Also what only a start with a live provider refuses: placeholders.")
@click.option("--verbose", is_flag=True, help="Also how each email goes out, what was read, and what codes mean.")
@answers
def lint(target: str | None, explain: str | None, form: str, live: bool, verbose: bool) -> Answer:
    """Check the files of a campaign, or of every campaign. Exits with 1 when there are errors; warnings pass.

    \b
    dripwell lint
    dripwell lint seven-benefits --live
    dripwell lint --explain D301
    """
    if explain is not None:
        return _explained(explain, for_programs=form == "json")
    root, names = _targets(target)
    sources: dict[str, str] = {}
    found: dict[Problem, None] = {}  # in order; what two campaigns share is told once
    emails = 0
    going_out: dict[str, tuple[Passage, ...]] = {}
    for name in names:
        own = read_sources(root, name)
        sources |= own
        loaded = load(own, name, campaigns=email_keys(root))
        found |= dict.fromkeys(loaded.problems)
        if loaded.site is not None and loaded.campaign is not None:
            emails += len(loaded.campaign.emails)
            found |= dict.fromkeys(lint_emails(own, loaded.site, loaded.campaign, loaded.claims, live=live))
            going_out[name] = passages(own, loaded.site, loaded.campaign)
        elif loaded.site is not None:
            found |= dict.fromkeys(lint_documents(own, loaded.site, name))
    problems = list(found)
    return Answer(
        _as_json(names, sources, problems, emails, going_out, verbose=verbose),
        [_github(problem) for problem in problems]
        if form == "github"
        else _as_text(names, sources, problems, emails, going_out, verbose=verbose),
        1 if any(problem.level == "error" for problem in problems) else 0,
        for_programs=form == "json",
    )


def _explained(code: str, *, for_programs: bool) -> Answer:
    wanted = code.upper()
    if wanted not in CATALOG:
        guess = did_you_mean(wanted, CATALOG)
        raise NotFoundError(f"there is no code {code}{'; ' + guess if guess else '.'} Codes are: {', '.join(CATALOG)}")
    line = Text.assemble((wanted, "bold"), f": {CATALOG[wanted]}")
    return Answer({"code": wanted, "explanation": CATALOG[wanted]}, [line], for_programs=for_programs)


def _targets(target: str | None) -> tuple[Path, list[str]]:
    """The project's folder and the campaigns in question: all, one by its name, or one by the path of its folder."""
    if target is None:
        root = project()
        return root, campaign_names(root)
    path = Path(target).resolve()
    folder = path.parent if path.is_file() else path
    if folder.parent.name == "campaigns" and folder.is_dir():
        return folder.parent.parent, [folder.name]
    if (folder / "campaigns").is_dir():
        return folder, campaign_names(folder)
    return project(), [target]


def _as_json(
    names: Sequence[str],
    sources: Mapping[str, str],
    problems: Sequence[Problem],
    emails: int,
    going_out: Mapping[str, Sequence[Passage]],
    *,
    verbose: bool,
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "campaigns": names,
        "emails": emails,
        "errors": sum(problem.level == "error" for problem in problems),
        "warnings": sum(problem.level == "warning" for problem in problems),
        "problems": problems,
        "going_out": going_out,
    }
    if verbose:
        codes = sorted({problem.code for problem in problems})
        value |= {"files": sorted(sources), "codes": {code: CATALOG[code] for code in codes if code in CATALOG}}
    return value


def _as_text(
    names: Sequence[str],
    sources: Mapping[str, str],
    problems: Sequence[Problem],
    emails: int,
    going_out: Mapping[str, Sequence[Passage]],
    *,
    verbose: bool,
) -> list[Line]:
    lines: list[Line] = []
    for problem in problems:
        lines += [Text.from_ansi(show(problem, sources.get(problem.path), color=True)), ""]
    if verbose:
        for name, ways in going_out.items():
            if ways:  # of an email with errors nobody can say how it would go out
                lines += [Text.assemble((name, "bold"), ":"), *(f"  {way}" for way in ways), ""]
        lines += [f"read {path}" for path in sorted(sources)] + [""]
        codes = sorted({problem.code for problem in problems if problem.code in CATALOG})
        lines += [Text.assemble((code, "bold"), f": {CATALOG[code]}\n") for code in codes]
    errors = sum(problem.level == "error" for problem in problems)
    mark = ("✗ ", "red") if errors else ("✓ ", "green")
    words = f"{counted(emails, 'email')} of {counted(len(names), 'campaign')}: {counted(errors, 'error')}, "
    lines.append(Text.assemble(mark, words + counted(len(problems) - errors, "warning")))
    if not verbose and problems:
        lines.append(f"  what a code means: dripwell lint --explain {problems[0].code}")
    return lines


def _github(problem: Problem) -> str:
    """A workflow command, which GitHub shows beside the line."""

    def escaped(text: str, *more: tuple[str, str]) -> str:
        for raw, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), *more):
            text = text.replace(raw, code)
        return text

    path = escaped(problem.path, (":", "%3A"), (",", "%2C"))
    place = f"file={path},line={problem.line},col={problem.column},endColumn={problem.column + problem.length}"
    words = ". ".join(part for part in (problem.text, problem.label, problem.help) if part)
    return clean(f"::{problem.level} {place},title={problem.code}::{escaped(words)}")


@click.command()
@click.argument("name")
@click.option(
    "--html", "html_folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write pages here."
)
@click.option(
    "--png", "png_folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Take pictures."
)
@click.option("--step", "steps", multiple=True, metavar="KEY", help="Only this email; may be given again.")
@click.option(
    "--as",
    "people",
    multiple=True,
    type=click.Choice([*SAMPLES, "all"]),
    default=["ordinary"],
    show_default=True,
    help="As this invented person gets it; may be given again.",
)
@answers
def preview(
    name: str, html_folder: Path | None, png_folder: Path | None, steps: tuple[str, ...], people: tuple[str, ...]
) -> Answer:
    """Look at the emails as invented people would get them.

    \b
    dripwell preview seven-benefits --html preview
    dripwell preview seven-benefits --png pictures --step 5-minimal-side-effects
    dripwell preview seven-benefits --html preview --as no-name --as long
    """
    if html_folder is None and png_folder is None:
        raise click.UsageError(f"say where: dripwell preview {name} --html DIR, or --png DIR, or both")
    root = project()
    sources = read_sources(root, name)
    loaded = load(sources, name)
    if loaded.site is None or loaded.campaign is None:
        raise ContentError(f"{name} cannot be shown, its files have errors: dripwell lint {name}")
    keys = _keys(loaded.campaign, steps)
    chosen = list(SAMPLES) if "all" in people else list(dict.fromkeys(people))
    emails = {
        f"{key}-{who}": render_step(sources, loaded.site, loaded.campaign, key, SAMPLES[who])
        for key in keys
        for who in chosen
    }
    art = {path.name: path.read_bytes() for path in sorted((root / ART).glob("*.jpg"))}
    written: list[Path] = []
    if html_folder is not None:
        written += _write_pages(html_folder, emails, art, loaded.site)
    if png_folder is not None:
        written += pictures.take({title: email.html for title, email in emails.items()}, png_folder, files=art)
    sizes = {title: len(email.html.encode()) for title, email in emails.items()}
    value = [{"email": title, "subject": email.subject, "bytes": sizes[title]} for title, email in emails.items()]
    rows = [[title, number(sizes[title]), email.subject] for title, email in emails.items()]
    places = " and ".join(str(folder) for folder in (html_folder, png_folder) if folder is not None)
    return Answer(
        {"campaign": name, "emails": value, "files": written},
        [*table(["email", "bytes", "subject"], rows), f"{counted(len(written), 'file')} in {places}"],
    )


def _keys(campaign: Campaign, wanted: Iterable[str]) -> list[str]:
    known = [email.key for email in campaign.emails]
    for key in wanted:
        if key not in known:
            guess = did_you_mean(key, known)
            raise NotFoundError(
                f"{campaign.name} has no email `{key}`{'; ' + guess if guess else '.'} Emails are: {', '.join(known)}"
            )
    return [key for key in known if key in wanted] if wanted else known


def _write_pages(folder: Path, emails: Mapping[str, Rendered], art: Mapping[str, bytes], site: Site) -> list[Path]:
    written = []
    try:
        (folder / "art").mkdir(parents=True, exist_ok=True)
        for name, content in art.items():
            (folder / "art" / name).write_bytes(content)
        for title, email in emails.items():
            page = email.html.replace(f"{site.base_url}/art/", "art/")  # pictures show without the web
            for path, text in ((folder / f"{title}.html", page), (folder / f"{title}.txt", email.text)):
                path.write_text(text, encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written: {error.strerror or error}. Name another folder: --html DIR"
        ) from error
    return written


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when a file is not up to date.")
@answers
def schema(check: bool) -> Answer:
    """Write config/schema/, from which editors complete and explain every key of a campaign.

    \b
    dripwell schema
    dripwell schema --check
    dripwell schema --json
    """
    root = project()
    old = [name for name, text in schemas.texts().items() if _text(root / name) != text]
    if check:
        lines: list[Line] = [f"{name} is not up to date: dripwell schema" for name in old]
        return Answer({"outdated": old}, lines or ["The schemas are up to date."], 1 if old else 0)
    try:
        written = schemas.write(root)
    except OSError as error:
        raise ConfigurationError(f"config/schema cannot be written: {error.strerror or error}") from error
    paths = [path.relative_to(root).as_posix() for path in written]
    return Answer(
        {"written": paths, "changed": old}, [f"{path}{' (changed)' if path in old else ''}" for path in paths]
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


commands: list[click.Command] = [lint, preview, schema]
