"""`forms list|show`: the sign-up forms, their words, and the HTML that puts one on another page."""

from __future__ import annotations

from html import escape

import click

from dripwell.cli.opening import project
from dripwell.cli.output import Answer, Line, answers, clean, table
from dripwell.content.load import load_site
from dripwell.content.places import SEGMENTS, SITE
from dripwell.content.problems import did_you_mean
from dripwell.core.agreement import asked_by, version_of
from dripwell.core.campaign import Form, Site
from dripwell.core.errors import ContentError, NotFoundError
from dripwell.embedded.lock import running
from dripwell.services.versions import with_base_url
from dripwell.settings import Settings

_LABELS = {"email": "Email address", "first_name": "First name", "last_name": "Last name", "state": "State"}
_COMPLETES = {"email": "email", "first_name": "given-name", "last_name": "family-name", "state": "address-level1"}


@click.group()
def forms() -> None:
    """See the sign-up forms of config/site.yaml, and get the HTML that puts one on your website.

    \b
    dripwell forms list
    dripwell forms show series-request
    dripwell forms show series-request --html > form.html
    """


@forms.command("list")
@answers
def list_() -> Answer:
    """List the sign-up forms: what each asks for, the topic it asks consent to, and the address of its page.

    \b
    dripwell forms list
    dripwell forms list --json
    dripwell forms list > forms.txt
    """
    site = _site()
    rows = [[form.name, form.topic, ", ".join(form.also) or "-", _url(site, form)] for form in site.forms]
    lines = table(["form", "topic", "also offers", "page"], rows) if rows else ["config/site.yaml names no form."]
    return Answer({"forms": [_value(site, form) for form in site.forms]}, lines)


@forms.command()
@click.argument("name")
@click.option("--html", "as_html", is_flag=True, help="Print the HTML to embed, and nothing else.")
@answers
def show(name: str, as_html: bool) -> Answer:
    """Show one form: its page, what it asks for, and the very words people agree to, with their version.

    \b
    dripwell forms show series-request
    dripwell forms show series-request --html > form.html
    dripwell forms show series-request --json

    The HTML needs no script and sets no cookie. It leads to the form's own page, where people read and tick what they
    agree to, so that the words on your website can never be older than those that are kept.
    """
    site = _site()
    form = next((form for form in site.forms if form.name == name), None)
    if form is None:
        known = [form.name for form in site.forms]
        guess = did_you_mean(name, known)
        raise NotFoundError(
            f"config/site.yaml names no form `{name}`{f'; {guess}' if guess else '.'} It names: "
            f"{', '.join(known) or 'none'}"
        )
    html = _html(site, form)
    if as_html:
        return Answer({**_value(site, form), "html": html}, html.splitlines())
    lines: list[Line] = [f"{form.name}   {_url(site, form)}", ""]
    lines += [f"  asks for {name}{'' if required else ', if they like'}" for name, required in form.asks]
    for asked in asked_by(form, site, frozenset(form.also)):
        lines += ["", f"  {asked.topic}   wording {asked.version}", clean(f"    “{asked.words}”")]
    return Answer(
        {**_value(site, form), "html": html}, [*lines, "", f"To embed it: dripwell forms show {form.name} --html"]
    )


def _site() -> Site:
    root = project()
    sources = {path: (root / path).read_text(encoding="utf-8") for path in (SITE, SEGMENTS) if (root / path).is_file()}
    site, problems = load_site(sources)
    if site is None:
        raise ContentError("\n".join(f"{p.path}:{p.line}:{p.column} {p.code} {p.text}" for p in problems))
    return with_base_url(site, _base_url(Settings.read()))


def _base_url(settings: Settings) -> str | None:
    """Where the pages are, if not where `links.base_url` says: in the sandbox, where `dripwell run` serves them."""
    if settings.live or settings.base_url is not None:
        return None if settings.live else settings.base_url
    info = running(settings.state_dir)
    return None if info is None else info.addresses.get("web")


def _url(site: Site, form: Form) -> str:
    return f"{site.base_url}/s/{form.name}"


def _value(site: Site, form: Form) -> dict[str, object]:
    return {
        "name": form.name,
        "url": _url(site, form),
        "topic": form.topic,
        "asks": {name: "required" if required else "optional" for name, required in form.asks},
        "consent": form.consent,
        "wording_version": version_of(form.consent),
        "also": [
            {"topic": asked.topic, "wording": asked.words, "wording_version": asked.version}
            for asked in asked_by(form, site, frozenset(form.also))[1:]
        ],
    }


def _html(site: Site, form: Form) -> str:
    """A plain form for any page. The ids carry the form's name, so that two forms can stand on one page."""
    topic = site.topic(form.topic)
    lines = [f'<form method="post" action="{escape(_url(site, form))}">']
    if topic is not None:
        lines.append(f"  <p>{escape(topic.title)}. {escape(topic.about)}</p>")
    for name, required in form.asks:
        label = _LABELS.get(name, name.replace("_", " ").capitalize()) + ("" if required else " (if you like)")
        kind = "email" if name == "email" else "text"
        mark = f"{form.name}-{name}".replace("_", "-")
        lines += [
            f'  <p><label for="{mark}">{escape(label)}</label><br>',
            f'    <input id="{mark}" name="{name}" type="{kind}" autocomplete="{_COMPLETES.get(name, "off")}"'
            f' maxlength="{254 if name == "email" else 100}"{" required" if required else ""}></p>',
        ]
    lines += [
        '  <p><button type="submit">Continue</button></p>',
        f"  <p><small>You read and agree on the next page, at {escape(site.clinic.short_name)}."
        " Nothing is emailed before that.</small></p>",
        "</form>",
    ]
    return "\n".join(lines)


commands: list[click.Command] = [forms]
