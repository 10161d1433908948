"""Sources -> values of `core`: the site, one campaign with its documents and claims, and every problem found."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

from pydantic import TypeAdapter

from dripwell.content.conditions import condition, judge_audience, judge_segments, scanners
from dripwell.content.explain import in_order, judge
from dripwell.content.models import (
    CampaignFile,
    ClaimEntry,
    ExitRule,
    Limits,
    OneTrigger,
    SegmentEntry,
    SendWindow,
    SiteFile,
    SuppressRule,
)
from dripwell.content.pace import tight_steps
from dripwell.content.pacing import DeliveryEntry
from dripwell.content.problems import Problem, SourceText
from dripwell.content.reading import Names, Reading, refuse_later
from dripwell.content.steps import emails_in, judge_steps, keys_of_emails, steps_of
from dripwell.content.values import DAYS, Key, days_of
from dripwell.content.yaml_source import Items, Keys, Node, Scalar, find, not_utf8, read_yaml
from dripwell.core import campaign as core

Sources = Mapping[str, str]
SITE_PATH = "config/site.yaml"
SEGMENTS_PATH = "config/segments.yaml"
MAX_DOCUMENT_BYTES = 200_000


@dataclass(frozen=True)
class Claim:
    """What a claim in an email rests on, and who checked it when."""

    name: str
    says: str
    source: str
    reviewed_by: str
    reviewed_on: date


@dataclass(frozen=True)
class Loaded:
    """What one run made of the files. A part is None while an error stands in its file."""

    site: core.Site | None
    campaign: core.Campaign | None
    documents: Mapping[str, str]  # step key -> Markdown
    claims: Mapping[str, Claim]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _SiteRead:
    site: core.Site | None
    problems: tuple[Problem, ...]
    names: Names
    form_topics: Mapping[str, str]


_CAMPAIGN = TypeAdapter(CampaignFile)
_SITE = TypeAdapter(SiteFile)
_SEGMENTS = TypeAdapter(dict[Key, SegmentEntry])
_CLAIMS = TypeAdapter(dict[Key, ClaimEntry])


def load_site(sources: Sources, *, stored: bool = False) -> tuple[core.Site | None, tuple[Problem, ...]]:
    """Read `config/site.yaml` and `config/segments.yaml`; the site is None while either has an error.

    `stored` is as in `load`.
    """
    read = _read_site(sources.get(SITE_PATH), sources.get(SEGMENTS_PATH), None, stored)
    return read.site, read.problems


def load(sources: Sources, campaign: str, *, campaigns: Collection[str] | None = None, stored: bool = False) -> Loaded:
    """Read one campaign with everything it needs. Never raises for what the files say: that is in `problems`.

    `campaigns` are the names there are, to check `active_in` and `clicked` against; as a mapping to the keys of their
    emails (`files.email_keys`), these are checked too; None leaves both unchecked. `stored` is a version that was
    right when it was applied: it may name events and fields that were not declared anywhere then.
    """
    around = _read_site(sources.get(SITE_PATH), sources.get(SEGMENTS_PATH), _known(campaigns), stored)
    folder = f"campaigns/{campaign}/"
    stems = tuple(
        sorted(
            path[len(folder) : -3]
            for path in sources
            if path.startswith(folder) and path.endswith(".md") and "/" not in path[len(folder) :]
        )
    )
    names = replace(
        around.names,
        documents=stems,
        campaign=campaign,
    )
    read, documents, problems = _read_campaign(sources, campaign, names, around)
    claims, claim_problems = _read_claims(sources.get(f"{folder}claims.yaml"), f"{folder}claims.yaml")
    return Loaded(around.site, read, documents, claims, (*around.problems, *problems, *claim_problems))


# --- the site -------------------------------------------------------------------------------


Known = tuple[tuple[str, tuple[str, ...] | None], ...]
"""Campaigns, each with the keys of its emails as far as they are known."""


def _known(campaigns: Collection[str] | None) -> Known | None:
    if campaigns is None:
        return None
    if isinstance(campaigns, Mapping):
        return tuple((name, tuple(keys)) for name, keys in sorted(campaigns.items()))
    return tuple((name, None) for name in sorted(campaigns))


@lru_cache(maxsize=32)
def _read_site(site_text: str | None, segments_text: str | None, known: Known | None, stored: bool) -> _SiteRead:
    """Read both files of `config/`. Cached by their text: every campaign of an installation shares them."""
    site_source = SourceText(SITE_PATH, site_text or "")
    segments_source = SourceText(SEGMENTS_PATH, segments_text or "")
    if site_text is None:
        site_root, site_problems = None, [_no_file(SITE_PATH, "restore it, or start anew with `dripwell init`")]
    else:
        site_root, site_problems = read_yaml(site_source)
    if segments_text is None:  # an installation without segments
        segments_root: Node | None = Keys(0, 0)
        segment_problems: list[Problem] = []
    else:
        segments_root, segment_problems = read_yaml(segments_source)
    topics, forms = find(site_root, "topics"), find(site_root, "forms")
    names = Names(
        topics=tuple(topics.values) if isinstance(topics, Keys) else None,
        segments=tuple(segments_root.values) if isinstance(segments_root, Keys) else None,
        forms=tuple(forms.values)
        if isinstance(forms, Keys)
        else ()
        if isinstance(site_root, Keys) and not forms
        else None,
        campaigns=None if known is None else tuple(name for name, _ in known),
        emails={name: keys for name, keys in known or () if keys is not None},
        fields=None if stored else _fields(site_root),
        events=None if stored else _events(site_root),
        tracks_clicks=not _is_false(find(site_root, "privacy", "track_clicks")),
    )
    segments_read = Reading(segments_source, names, segment_problems)
    segment_file: dict[str, SegmentEntry] | None = None
    if segments_root is not None:
        segment_file = judge(_SEGMENTS, segments_root, segments_read, "segments")
        judge_segments(segments_root, segments_read)
    site_read = Reading(site_source, names, site_problems)
    site_file: SiteFile | None = judge(_SITE, site_root, site_read, SiteFile.what) if site_root is not None else None
    site = None
    if site_file is not None and segment_file is not None and not site_problems and not segment_problems:
        site = _site(site_file, segment_file)
        segment_problems += scanners(segments_root, segments_read)
    problems = (*in_order(site_problems), *in_order(segment_problems))
    return _SiteRead(site, problems, names, _form_topics(forms))


def _fields(site: Node | None) -> tuple[str, ...] | None:
    """What `Site.field_names` will say, before the site is known to be right; None when that cannot be told."""
    forms, declared = find(site, "forms"), find(site, "fields")
    if not isinstance(site, Keys) or not all(part is None or isinstance(part, Keys) for part in (forms, declared)):
        return None
    found = set(core.ALWAYS_FIELDS)
    for form in forms.values.values() if isinstance(forms, Keys) else ():
        asks = find(form, "asks")
        found |= set(asks.values) if isinstance(asks, Keys) else set()
    found |= set(declared.values) if isinstance(declared, Keys) else set()
    return tuple(sorted(found - {"email"}))


def _events(site: Node | None) -> tuple[str, ...] | None:
    declared = find(site, "events")
    if not isinstance(site, Keys) or not (declared is None or isinstance(declared, Keys)):
        return None
    return tuple(dict.fromkeys((*core.OUR_EVENTS, *(declared.values if isinstance(declared, Keys) else ()))))


def _is_false(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.value is False


def _form_topics(forms: Node | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, form in forms.values.items() if isinstance(forms, Keys) else ():
        topic = find(form, "topic")
        if isinstance(topic, Scalar):
            found[name] = topic.raw
    return found


def _site(file: SiteFile, segments: dict[str, SegmentEntry]) -> core.Site:
    clinic, privacy, call = file.clinic, file.privacy, file.consultation
    return core.Site(
        clinic=core.Clinic(**clinic.model_dump()),
        sender=file.sender.from_,
        service_sender=file.sender.service_from,
        reply_to=file.sender.reply_to,
        base_url=file.links.base_url,
        link_hosts=tuple(file.links.allow),
        window=_window(file.send_window, core.Window()),
        limits=_limits(file.limits) or core.Limits(),
        suppress=_suppress(file.suppress),
        topics=tuple(core.Topic(name, topic.title, topic.about) for name, topic in file.topics.items()),
        forms=tuple(
            core.Form(
                name,
                form.topic,
                form.consent.strip(),
                tuple((asked, how == "required") for asked, how in form.asks.items()),
                tuple(form.also),
            )
            for name, form in file.forms.items()
        ),
        consultation=core.Consultation(
            title=call.title,
            length=call.length,
            hours=tuple(
                sorted((day, opens, closes) for span, (opens, closes) in call.hours.items() for day in days_of(span))
            ),
            hold=call.hold,
            caller_id=call.caller_id,
            notify=call.notify,
        ),
        track_clicks=privacy.track_clicks if privacy else True,
        discreet=privacy.discreet if privacy else True,
        discreet_words=tuple(privacy.discreet_words) if privacy else (),
        keep_events=privacy.keep_events if privacy else core.EVENTS_KEPT,
        keep_quiet_subscribers=privacy.keep_quiet_subscribers if privacy else None,
        segments=tuple(
            core.Segment(name, entry.about.strip(), condition(entry.when)) for name, entry in segments.items()
        ),
        warm_up=core.WarmUp(file.warm_up.preset, file.warm_up.first_day) if file.warm_up else None,
        delivery=_delivery(file.delivery),
        events=tuple(core.Declared(name, about.strip()) for name, about in file.events.items()),
        fields=tuple(core.Declared(name, about.strip()) for name, about in file.fields.items()),
    )


def _delivery(given: DeliveryEntry | None) -> core.Delivery:
    if given is None:
        return core.Delivery()
    rate = core.Delivery().rate if given.rate is None else given.rate
    return core.Delivery(on_unknown=given.on_unknown, rate=rate, pace=dict(given.pace))


def _window(window: SendWindow | None, base: core.Window) -> core.Window:
    if window is None:
        return base
    opens, closes = window.hours or (base.opens, base.closes)
    days = window.days
    return core.Window(
        days=base.days if days is None else frozenset(DAYS.index(d) for d in days) if isinstance(days, list) else days,
        opens=opens,
        closes=closes,
        zone=window.timezone or base.zone,
    )


def _limits(limits: Limits | None) -> core.Limits | None:
    if limits is None:
        return None
    emails, per = limits.emails or (None, None)
    return core.Limits(emails, per, limits.gap)


def _suppress(rules: list[SuppressRule] | None) -> tuple[core.Suppress, ...]:
    found: list[core.Suppress] = []
    for rule in rules or ():
        if rule.segment is not None:
            found.append(core.Suppress("segment", rule.segment))
        elif rule.tag is not None:
            found.append(core.Suppress("tag", rule.tag))
        elif rule.active_in is not None:
            found.append(core.Suppress("active_in", rule.active_in))
        elif rule.emailed_within is not None:
            found.append(core.Suppress("emailed_within", rule.emailed_within))
    return tuple(found)


# --- the campaign ----------------------------------------------------------------------------


def _read_campaign(
    sources: Sources, campaign: str, names: Names, around: _SiteRead
) -> tuple[core.Campaign | None, dict[str, str], list[Problem]]:
    path = f"campaigns/{campaign}/campaign.yaml"
    if path not in sources:
        return None, {}, [_no_file(path, f"write it, or start with `dripwell new drip {campaign}`")]
    source = SourceText(path, sources[path])
    root, problems = read_yaml(source)
    names = replace(names, emails={**names.emails, campaign: keys_of_emails(root)})
    reading = Reading(source, names, problems)
    if root is None:
        return None, {}, in_order(problems)
    kind = find(root, "type")
    if isinstance(kind, Scalar) and kind.raw == "newsletter":
        refuse_later(reading, kind, "`type: newsletter`")
        return None, {}, in_order(problems)
    file: CampaignFile | None = judge(_CAMPAIGN, root, reading, CampaignFile.what)
    _judge_triggers(root, reading, around)
    steps = find(root, "steps")
    if isinstance(steps, Items):
        judge_steps(steps, reading)
    documents, document_problems = _read_documents(sources, campaign, steps)
    found = None
    if file is not None and not problems:
        found = _campaign(campaign, file, around)
        if found.audience is not None and around.site is not None:
            segments = {segment.name: segment.when for segment in around.site.segments}
            judge_audience(found.audience, segments, find(root, "audience") or root, reading)
        if problems:
            return None, documents, [*in_order(problems), *document_problems]
        problems += _tight(found, steps, reading, around)
        problems += scanners(find(root, "audience"), reading)
        problems += scanners(steps, reading)
    return found, documents, [*in_order(problems), *document_problems]


def _tight(campaign: core.Campaign, steps: Node | None, reading: Reading, around: _SiteRead) -> list[Problem]:
    limits = [campaign.limits, around.site.limits if around.site is not None else None]
    warnings: list[Problem] = []
    for tight in tight_steps(campaign, tuple(limit for limit in limits if limit is not None)):
        spot = find(steps, *tight.place, "wait") or find(steps, *tight.place, "email")
        if spot is not None:
            problem = reading.source.problem("D203", spot.start, spot.end, tight.text, help=tight.help)
            warnings.append(replace(problem, level="warning"))
    return warnings


def _campaign(name: str, file: CampaignFile, around: _SiteRead) -> core.Campaign:
    base = around.site.window if around.site is not None else core.Window()
    goal = file.goal
    window = _window(file.send_window, base)
    return core.Campaign(
        name=name,
        title=file.name,
        kind="drip",
        topic=file.topic,
        steps=steps_of(file.steps, lambda own: _window(own, window)),
        triggers=tuple(_trigger(trigger) for trigger in file.trigger.any or [file.trigger]),
        approval=file.approval,
        goal=core.Goal(goal.event, goal.within, goal.name or "", goal.then == "exit") if goal else None,
        exits=tuple(_exit(rule) for rule in file.exit or ()),
        suppress=_suppress(file.suppress),
        window=window if file.send_window else None,
        limits=_limits(file.limits),
        description=(file.description or "").strip(),
        reenter=file.reenter,
        audience=None if file.audience is None else condition(file.audience),
    )


def _trigger(trigger: OneTrigger) -> core.Trigger:
    if trigger.form is not None:
        return core.Trigger("form", trigger.form)
    if trigger.tag is not None:
        return core.Trigger("tag", trigger.tag)
    if trigger.event is not None:
        return core.Trigger("event", trigger.event)
    if trigger.import_ is not None:
        return core.Trigger("import")
    return core.Trigger("manual")


def _exit(rule: ExitRule) -> core.Exit:
    if rule.tag is not None:
        return core.Exit("tag", rule.tag)
    if rule.event is not None:
        return core.Exit("event", rule.event)
    if rule.segment is not None:
        return core.Exit("segment", rule.segment)
    if rule.left_segment is not None:
        return core.Exit("left_segment", rule.left_segment)
    if rule.after is not None:
        return core.Exit("after", rule.after)
    raise AssertionError("an exit without a deciding key was refused by `judge_keys`")


def _judge_triggers(root: Node, reading: Reading, around: _SiteRead) -> None:
    """A form gives consent to one topic: the campaign it starts must be about that topic."""
    topic = find(root, "topic")
    trigger = find(root, "trigger")
    several = find(trigger, "any")
    for one in several.items if isinstance(several, Items) else [trigger]:
        form = find(one, "form")
        if not isinstance(form, Scalar) or not isinstance(topic, Scalar):
            continue
        agreed = around.form_topics.get(form.raw)
        if agreed is not None and agreed != topic.raw and topic.raw in (around.names.topics or ()):
            reading.refuse(
                "D201",
                form,
                f"the form `{form.raw}` asks consent for `{agreed}`, not for `{topic.raw}`",
                label="a different topic",
                help=f"write `topic: {agreed}` above, or choose a form whose topic is `{topic.raw}`",
            )


def _read_documents(sources: Sources, campaign: str, steps: Node | None) -> tuple[dict[str, str], list[Problem]]:
    documents: dict[str, str] = {}
    problems: dict[str, Problem] = {}
    for step in emails_in(steps):
        stem, given = find(step, "email"), find(step, "key")
        if not isinstance(stem, Scalar):
            continue
        path = f"campaigns/{campaign}/{stem.raw}.md"
        if path not in sources:
            continue
        source = SourceText(path, sources[path])
        problem = _judge_document(source)
        if problem is not None:
            problems[path] = problem
        else:
            key = given.raw if isinstance(given, Scalar) and given.raw else stem.raw
            documents.setdefault(key, re.sub(r"\r\n?", "\n", source.text))
    return documents, [problems[path] for path in sorted(problems)]


def _judge_document(source: SourceText) -> Problem | None:
    if len(source.text.encode("utf-8", "surrogateescape")) > MAX_DOCUMENT_BYTES:
        return source.problem("D105", 0, 1, "this email is larger than 200 KB", help="an email is a page, not a book")
    broken = not_utf8(source)
    if broken is not None:
        return broken
    if not source.text.strip():
        return source.problem("D101", 0, 1, "this email has no words yet", help="write it, starting with `# A title`")
    nul = source.text.find("\0")
    if nul >= 0:
        return source.problem("D514", nul, nul + 1, "there is an invisible character here (U+0000)", help="delete it")
    return None


def _read_claims(text: str | None, path: str) -> tuple[dict[str, Claim], list[Problem]]:
    if text is None:
        return {}, []
    source = SourceText(path, text)
    root, problems = read_yaml(source)
    if root is None:
        return {}, problems
    file = judge(_CLAIMS, root, Reading(source, Names(), problems), "claims.yaml")
    if file is None:
        return {}, in_order(problems)
    claims = {
        name: Claim(name, entry.says.strip(), entry.source.strip(), entry.reviewed.by, entry.reviewed.date)
        for name, entry in file.items()
    }
    return claims, in_order(problems)


def _no_file(path: str, help: str) -> Problem:
    return Problem("D201", "error", path, 1, 1, 1, f"there is no file {path}", help)
