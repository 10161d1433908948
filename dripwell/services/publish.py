"""From files to a running campaign: plan (reads), apply (an immutable version), approve, start, pause, resume, stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo

from dripwell.content.lint import lint_documents, lint_emails
from dripwell.content.lint_site import far_warm_up
from dripwell.content.load import load, load_site
from dripwell.content.problems import Problem
from dripwell.content.render import service_campaign, step_links
from dripwell.core.address import check
from dripwell.core.campaign import Campaign, Site
from dripwell.core.conditions import in_words
from dripwell.core.errors import ContentError, NotFoundError, RefusedError
from dripwell.core.passage import next_keys
from dripwell.core.states import Reason
from dripwell.services import audience, leave
from dripwell.services.differences import Change, differences
from dripwell.services.versions import SERVICE_LANES, Published, Versions
from dripwell.storage import campaigns, clock, enrollments, reports, subscribers
from dripwell.storage.campaigns import CampaignRow
from dripwell.storage.database import Connection
from dripwell.storage.segments import Count


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying these files would do, and to whom. Nothing has changed by making one."""

    campaign: str
    title: str
    version_now: int | None
    version_next: int | None
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]
    in_progress: int
    waiting_before: Mapping[str, int]  # people who have not yet had this email, by step key
    content_hash: str
    approval: str | None
    approved: bool
    audience: str | None = None  # who may join, in words; None: everybody the trigger happens to
    admits: Count | None = None  # how many that would be now

    @property
    def id(self) -> str:
        """A short name for exactly this plan: the content and the live version it was made against."""
        return hashlib.sha256(f"{self.content_hash}/{self.version_now}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a campaign stands: its state, its newest version, and whether whom it asks has approved that."""

    state: str
    number: int
    approval: str | None
    approved: bool


def standing(connection: Connection, name: str, *, versions: Versions) -> Standing:
    """Where an applied campaign stands. Raises NotFoundError when it is none."""
    row = existing(connection, name)
    assert row.version_id is not None
    published = versions.published(connection, row.version_id)
    content_hash = campaigns.version(connection, row.version_id).content_hash
    approved = _is_approved(connection, row, published.campaign, content_hash)
    return Standing(row.state, published.number, published.campaign.approval, approved)


def newest_number(connection: Connection, name: str, *, versions: Versions) -> int | None:
    """The number of a campaign's newest version, or None before its first."""
    row = campaigns.by_name(connection, name)
    return None if row is None or row.version_id is None else versions.published(connection, row.version_id).number


def check_files(
    sources: Mapping[str, str], name: str, *, live: bool, root_names: Sequence[str] = ()
) -> tuple[Site, Campaign, tuple[Problem, ...]]:
    """Load and lint. Raises ContentError naming every error; warnings are returned."""
    site, campaign, problems = _checked(tuple(sorted(sources.items())), name, live, tuple(root_names))
    errors = [problem for problem in problems if problem.level == "error"]
    if errors or site is None or campaign is None:
        lines = "\n".join(f"  {p.path}:{p.line}:{p.column} {p.code} {p.text}" for p in errors)
        look = f"dripwell lint {name}{' --live' if live else ''}"
        raise ContentError(
            f"{name} has {len(errors)} error{'s' if len(errors) != 1 else ''}:\n{lines}\nSee them in full: {look}"
        )
    return site, campaign, problems


@lru_cache(maxsize=8)  # `plan` and `apply` look at the same files one after the other, and linting takes a second
def _checked(
    sources: tuple[tuple[str, str], ...], name: str, live: bool, root_names: tuple[str, ...]
) -> tuple[Site | None, Campaign | None, tuple[Problem, ...]]:
    files = dict(sources)
    loaded = load(files, name, campaigns=root_names or None)
    problems = loaded.problems
    if loaded.site is not None and loaded.campaign is not None:
        problems += lint_emails(files, loaded.site, loaded.campaign, loaded.claims, live=live)
    elif loaded.site is not None:
        problems += lint_documents(files, loaded.site, name)
    return loaded.site, loaded.campaign, problems


def hashes(sources: Mapping[str, str], campaign: Campaign) -> tuple[str, str]:
    """(structure hash, content hash) of a version: steps, waits and order; and every file it is made from."""
    structure = hashlib.sha256(repr(campaign.steps).encode()).hexdigest()
    own = {
        path: text
        for path, text in sources.items()
        if not path.startswith("templates/email/system/") or campaign.kind == "service"
    }
    content = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return structure, content


def plan(connection: Connection, sources: Mapping[str, str], name: str, *, live: bool, versions: Versions) -> Plan:
    """Compare the files with the live version and count the people it would touch. Changes nothing."""
    site, campaign, problems = check_files(sources, name, live=live)
    today = clock.read(connection).now.astimezone(ZoneInfo(site.clinic.timezone)).date()
    problems += tuple(far_warm_up(sources, site, today))
    made = _compared(connection, sources, name, campaign, problems, versions)
    return replace(made, admits=audience.size(connection, site, campaign, clock.read(connection)))


def _compared(
    connection: Connection,
    sources: Mapping[str, str],
    name: str,
    campaign: Campaign,
    problems: tuple[Problem, ...],
    versions: Versions,
) -> Plan:
    row = campaigns.by_name(connection, name)
    _, content_hash = hashes(sources, campaign)
    now_number: int | None = None
    changes: list[Change] = []
    before: Campaign | None = None
    if row is not None and row.version_id is not None:
        published = versions.published(connection, row.version_id)
        now_number, before = published.number, published.campaign
        stored = campaigns.version(connection, row.version_id)
        if stored.content_hash != content_hash:
            changes = differences(before, campaign, stored.sources, sources)
    else:
        changes = [Change("added", email.key, email.subject) for email in campaign.emails]
    positions = reports.positions(connection, row.id) if row is not None else {}
    approved = row is not None and _is_approved(connection, row, campaign, content_hash)
    return Plan(
        campaign=name,
        title=campaign.title,
        version_now=now_number,
        version_next=(now_number or 0) + 1 if changes else now_number,
        changes=tuple(changes),
        problems=problems,
        in_progress=sum(positions.values()),
        waiting_before=_waiting_before(campaign, positions),
        content_hash=content_hash,
        approval=campaign.approval,
        approved=approved,
        audience=None if campaign.audience is None else in_words(campaign.audience),
    )


def apply(
    connection: Connection,
    sources: Mapping[str, str],
    name: str,
    *,
    actor: str,
    live: bool,
    versions: Versions,
    new_id: Callable[[], UUID],
    plan_id: str | None = None,
) -> int:
    """Store an immutable version and make it the newest; returns its number. The same files again change nothing.

    Raises ContentError for files with errors, RefusedError when `plan_id` names another plan than the one made now, or
    when the campaign is running and somebody has to approve this version first.
    """
    _refuse_removed_keys(connection, sources, name, versions)
    site, campaign, problems = check_files(sources, name, live=live)
    made = _compared(connection, sources, name, campaign, problems, versions)
    if plan_id is not None and plan_id != made.id:
        raise RefusedError(
            f"plan {plan_id} is not what would happen now: the files or the live version changed. "
            f"Look again: dripwell plan {name}"
        )
    if not made.changes and made.version_now is not None:
        return made.version_now
    _refuse_unapproved_while_running(connection, campaign, name, made)
    row = campaigns.add(connection, public_id=new_id(), name=name, kind="drip", state="draft", topic=campaign.topic)
    number = _store(connection, sources, site, campaign, row, actor=actor)
    campaigns.add_activity(
        connection, actor=actor, action="applied", about=name, detail={"version": number, "content": made.content_hash}
    )
    return number


def apply_service(connection: Connection, sources: Mapping[str, str], *, new_id: Callable[[], UUID]) -> None:
    """Store the built-in service campaigns from the theme's system mails, running, when their files changed."""
    site, problems = load_site(sources)
    if site is None:
        raise ContentError("\n".join(f"{p.path}:{p.line}:{p.column} {p.code} {p.text}" for p in problems))
    own = {path: text for path, text in sources.items() if not path.startswith("campaigns/")}
    for name in SERVICE_LANES:
        campaign = service_campaign(own, name)
        row = campaigns.add(connection, public_id=new_id(), name=name, kind="service", state="running", topic="")
        _, content_hash = hashes(own, campaign)
        if row.version_id is not None and campaigns.version(connection, row.version_id).content_hash == content_hash:
            continue
        _store(connection, own, site, campaign, row, actor="dripwell")


def _store(
    connection: Connection, sources: Mapping[str, str], site: Site, campaign: Campaign, row: CampaignRow, *, actor: str
) -> int:
    structure_hash, content_hash = hashes(sources, campaign)
    number = 1 if row.version_id is None else campaigns.version(connection, row.version_id).number + 1
    campaigns.add_version(
        connection,
        campaign_id=row.id,
        number=number,
        sources=sources,
        structure_hash=structure_hash,
        content_hash=content_hash,
        applied_by=actor,
        links={email.key: step_links(sources, site, campaign, email.key) for email in campaign.emails},
        topic=campaign.topic,
    )
    return number


def approve(connection: Connection, name: str, *, actor: str, versions: Versions) -> int:
    """Record that `actor` approved the newest version's exact content; returns its number.

    Raises RefusedError when the campaign names another person. The name is the actor's own word on the command line;
    the dashboard will ask who they are.
    """
    row = existing(connection, name, lock=True)
    assert row.version_id is not None
    version = campaigns.version(connection, row.version_id)
    wanted = versions.published(connection, row.version_id).campaign.approval
    if wanted is None:
        raise RefusedError(f"{name} asks for nobody's approval: start it with `dripwell start {name}`")
    if check(actor).lower() != wanted.lower():
        raise RefusedError(f"{name} must be approved by {wanted}: dripwell approve {name} --by {wanted}")
    campaigns.approve(
        connection, campaign_id=row.id, version_id=version.id, content_hash=version.content_hash, approved_by=wanted
    )
    campaigns.add_activity(connection, actor=wanted, action="approved", about=name, detail={"version": version.number})
    return version.number


def start(connection: Connection, name: str, *, actor: str, live: bool, versions: Versions, baa: bool = False) -> None:
    """Let a campaign enroll and mail. `baa`: the provider has signed a business associate agreement.

    Raises RefusedError while approval is missing or, live, a fact is a placeholder or patients would be mailed through
    a provider without such an agreement (rules 5.7).
    """
    row = existing(connection, name, lock=True)
    assert row.version_id is not None
    published = versions.published(connection, row.version_id)
    if row.state not in ("draft", "stopped", "running"):
        raise RefusedError(f"{name} is {row.state}: dripwell resume {name}")
    if not _is_approved(
        connection, row, published.campaign, campaigns.version(connection, row.version_id).content_hash
    ):
        raise _waits_for_approval(name, published)
    if live and not baa:
        _refuse_patients(connection, name, row)
    if live:
        try:
            check_files(published.sources, name, live=True)
        except ContentError as error:
            raise RefusedError(f"{name} must not start with a live provider yet: {error}") from error
    if campaigns.set_state(connection, row.id, ("draft", "stopped"), "running"):
        campaigns.add_activity(
            connection, actor=actor, action="started", about=name, detail={"version": published.number}
        )
        campaigns.ring(connection, "plan")


def pause(connection: Connection, name: str, *, actor: str) -> None:
    """Stop planning and mailing for this campaign; nobody exits and nobody loses their place."""
    row = existing(connection, name, lock=True)
    if campaigns.set_state(connection, row.id, ("running",), "paused"):
        campaigns.add_activity(connection, actor=actor, action="paused", about=name, detail={})
    elif row.state != "paused":
        raise RefusedError(f"{name} is {row.state}; only a running campaign can be paused")


def resume(connection: Connection, name: str, *, actor: str, versions: Versions) -> int:
    """Go on. Returns how many people are overdue: each gets one email, then waits again; windows and limits hold.

    Raises RefusedError while the newest version waits for approval.
    """
    row = existing(connection, name, lock=True)
    assert row.version_id is not None
    published = versions.published(connection, row.version_id)
    content_hash = campaigns.version(connection, row.version_id).content_hash
    if row.state == "paused" and not _is_approved(connection, row, published.campaign, content_hash):
        raise _waits_for_approval(name, published)
    overdue = reports.overdue(connection, row.id, clock.read(connection).now)
    if campaigns.set_state(connection, row.id, ("paused",), "running"):
        campaigns.add_activity(connection, actor=actor, action="resumed", about=name, detail={"overdue": overdue})
        campaigns.ring(connection, "plan")
    elif row.state != "running":
        raise RefusedError(f"{name} is {row.state}; only a paused campaign can be resumed: dripwell start {name}")
    return overdue


def stop(connection: Connection, name: str, *, actor: str) -> int:
    """End the campaign for everybody in it, with a reason on each row. Returns how many people left."""
    row = existing(connection, name, lock=True)
    if not campaigns.set_state(connection, row.id, ("draft", "running", "paused"), "stopped"):
        return 0
    ids = enrollments.ids_under_way(connection, row.id)
    ended = leave.end(connection, enrollment_ids=ids, reason=Reason.STOPPED, times=clock.read(connection), actor=actor)
    campaigns.add_activity(connection, actor=actor, action="stopped", about=name, detail={"people": ended})
    return ended


def existing(connection: Connection, name: str, *, lock: bool = False) -> CampaignRow:
    """The applied campaign of this name. Raises NotFoundError that says what to do."""
    row = campaigns.by_name(connection, name, lock=lock)
    if row is None or row.version_id is None or row.kind == "service":
        raise NotFoundError(f"no campaign `{name}` has been applied yet: dripwell apply {name}")
    return row


def _refuse_patients(connection: Connection, name: str, row: CampaignRow) -> None:
    found = subscribers.patients(connection, row.id, row.topic)
    if found:
        them = "1 patient is" if found == 1 else f"{found:,} patients are"
        raise RefusedError(
            f"D510 {them} in {name} or may join it, and who mails for this clinic has signed no business associate "
            f"agreement. Mail through a relay whose owner has signed one: DRIPWELL_SMTP_URL and DRIPWELL_SMTP_BAA=yes "
            f"(docs/how-to/smtp.md). Somebody who is no patient: dripwell subscribers add ADDRESS --topic {row.topic} "
            f"--source WORDS --relationship prospect"
        )


def _is_approved(connection: Connection, row: CampaignRow, campaign: Campaign, content_hash: str) -> bool:
    if campaign.approval is None:
        return True
    return campaign.approval in campaigns.approved_by(connection, row.id, content_hash)


def _waits_for_approval(name: str, published: Published) -> RefusedError:
    who = published.campaign.approval
    return RefusedError(f"version {published.number} of {name} waits for {who}: dripwell approve {name} --by {who}")


def _refuse_unapproved_while_running(connection: Connection, campaign: Campaign, name: str, made: Plan) -> None:
    # The newest version's words reach everybody from their next email, so a running campaign must not get words that
    # nobody has approved.
    row = campaigns.by_name(connection, name, lock=True)
    if row is not None and row.state == "running" and campaign.approval is not None and not made.approved:
        raise RefusedError(
            f"{name} is running, and {campaign.approval} has not approved these files: its words would reach people at "
            f"once. Pause it, apply, have it approved, go on: dripwell pause {name}"
        )


def _refuse_removed_keys(connection: Connection, sources: Mapping[str, str], name: str, versions: Versions) -> None:
    """D104: a key removed once is never free again; the ledger's "never twice" hangs on it."""
    row = campaigns.by_name(connection, name)
    loaded = load(sources, name)
    if row is None or row.version_id is None or loaded.campaign is None:
        return
    newest = {email.key for email in versions.published(connection, row.version_id).campaign.emails}
    ever: set[str] = set()
    for version_id in campaigns.version_ids(connection, row.id):
        ever |= {email.key for email in versions.published(connection, version_id).campaign.emails}
    for email in loaded.campaign.emails:
        if email.key in ever - newest:
            raise ContentError(
                f"campaigns/{name}/campaign.yaml D104 the key `{email.key}` was removed in an earlier version and is "
                f"used up: give the email another file name or `key:`"
            )


def _waiting_before(campaign: Campaign, positions: Mapping[str | None, int]) -> dict[str, int]:
    ahead = dict.fromkeys((email.key for email in campaign.emails), 0)
    for cursor, count in positions.items():
        for key in next_keys(campaign, cursor):
            ahead[key] += count
    return ahead
