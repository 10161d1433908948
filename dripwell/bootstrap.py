"""The composition root: settings become ready parts. The only module that names concrete adapters, and the only one
that may make ids, secrets or ask the host who it is."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from dripwell.content.files import campaign_names, read_sources
from dripwell.content.load import load_site
from dripwell.core.address import address_hash
from dripwell.core.campaign import Lane, Site
from dripwell.core.errors import ConfigurationError, ContentError
from dripwell.core.tokens import Keys
from dripwell.delivery.sendgrid import SendGrid
from dripwell.delivery.sendgrid_lists import SendGridLists
from dripwell.delivery.smtp import Smtp, parse_url
from dripwell.embedded.lock import running
from dripwell.embedded.servers import Servers, running_or_started
from dripwell.embedded.state import remembered
from dripwell.services import (
    audit,
    erase,
    ingest,
    leave,
    pace,
    plan,
    publish,
    quarantine,
    reputation,
    retention,
    send,
    settle,
    sync,
)
from dripwell.services.clockwatch import ClockWatch
from dripwell.services.settle import SANDBOX, Patience
from dripwell.services.versions import Versions, with_base_url
from dripwell.settings import Settings
from dripwell.storage import api_keys, campaigns, invariants, journal, schema, spool, workers
from dripwell.storage import pace as at_work
from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from dripwell.storage.journal import Journal
from dripwell.storage.limiter import Limiter
from dripwell.storage.witness import Witnesses

__all__ = ["QUEUES", "Connection", "Installation", "connect", "opened", "run_pass"]

log = logging.getLogger("dripwell")

SANDBOX_KEY = "SG.sandbox"
"""The key the sandbox takes. It opens nothing else."""
REAL_PROVIDER = "https://api.sendgrid.com"
WEB_PORT = 8000
"""Where the pages are served when nothing else is said."""
LOOK_AGAIN = 10.0
"""Seconds between two looks of one process at the witnesses of the record."""
PASS_SECONDS = 12.0
"""Shorter than the silence after which a bell runs a pass of its own."""

QUEUES: Mapping[str, tuple[str, ...]] = {
    "service": ("confirm", "booking"),
    "rest": ("drip", "newsletter", "plan", "ingest", "keep"),
}
"""The Celery queues, by the worker that serves them on one machine."""


@dataclass(frozen=True)
class Installation:
    """Everything a command, a page or a pass may need, ready. One per process, opened after the fork."""

    settings: Settings
    root: Path
    database: Database
    fast: Fast
    limiter: Limiter
    journal: Journal
    witnesses: Witnesses
    redis_url: str
    clock: ClockWatch
    looked: dict[str, float]  # when this process last looked at something, by its monotonic clock
    site: Site
    keys: Keys
    pepper: bytes
    versions: Versions
    provider: SendGrid | Smtp
    door: SendGrid | Smtp | None
    owner: Owner
    patience: Patience
    failpoint: Callable[[str], None]

    @property
    def live(self) -> bool:
        """Whether mail leaves the building."""
        return self.settings.live

    def new_id(self) -> UUID:
        """A random id."""
        return uuid.uuid4()

    def new_secret(self) -> str:
        """128 random bits, URL-safe."""
        return secrets.token_urlsafe(16)

    def new_api_key(self) -> str:
        """A key of the API: 256 random bits, behind a beginning by which a leaked one is recognized."""
        return "dw_" + secrets.token_urlsafe(32)

    @property
    def journal_folder(self) -> Path:
        """Where this host's call journal is."""
        return journal.folder_in(self.settings.state_dir)

    def sources(self, campaign: str) -> dict[str, str]:
        """The files of one campaign with the site, the segments and the theme."""
        return read_sources(self.root, campaign)

    def campaign_names(self) -> list[str]:
        """The campaigns that have a folder."""
        return campaign_names(self.root)

    def is_alive(self, pid: int) -> bool:
        """Whether a process of this host runs."""
        return _is_alive(pid)

    def close(self) -> None:
        """Give everything back."""
        self.provider.close()
        self.fast.close()
        self.limiter.close()
        self.journal.close()
        self.witnesses.close()
        self.database.close()


def connect(settings: Settings, root: Path, database_url: str, redis_url: str) -> Installation:
    """Open an installation whose servers run. Raises ConfigurationError or ContentError that names what to mend."""
    settings.check_live()
    keys, pepper = _keys(settings)
    live = settings.live
    base_url = None if live else settings.base_url
    site, problems = load_site(_site_sources(root))
    if site is None:
        raise ContentError("\n".join(f"{p.path}:{p.line}:{p.column} {p.code} {p.text}" for p in problems))
    provider = _provider(settings)
    return Installation(
        settings=settings,
        root=root,
        database=Database(database_url, pool=4),
        fast=Fast(redis_url),
        limiter=Limiter(redis_url, ceiling=site.delivery.rate, pace=site.delivery.pace),
        journal=Journal(journal.folder_in(settings.state_dir), host=socket.gethostname()),
        witnesses=Witnesses(settings.state_dir, redis_url),
        redis_url=redis_url,
        clock=ClockWatch(),
        looked={},
        site=with_base_url(site, base_url),
        keys=keys,
        pepper=pepper,
        versions=Versions(base_url),
        provider=provider,
        door=provider if provider.capabilities.events or settings.provider == "smtp" else None,
        owner=Owner(socket.gethostname(), _boot_id(), os.getpid()),
        patience=_patience(site, live=live, logs=provider.capabilities.logs),
        failpoint=_failpoint(settings),
    )


@contextmanager
def opened(settings: Settings, root: Path) -> Iterator[Installation]:
    """Open an installation for one command: on the servers of a `dripwell run`, or on its own for as long as it lasts.

    The record is brought up to date and the service emails are stored.
    """
    servers = locate(settings)
    try:
        database_url, redis_url = urls(settings, servers)
        installation = connect(settings, root, database_url, redis_url)
        try:
            prepare(installation)
            yield installation
        finally:
            installation.close()
    finally:
        if servers is not None:
            servers.stop()


def prepare(installation: Installation) -> None:
    """Bring the record up to date and store the service emails. Safe to run from several processes at once."""
    schema.upgrade(installation.database)
    in_quarantine(installation)
    sources = _site_sources(installation.root) | _theme_sources(installation)
    installation.database.retrying(
        lambda connection: publish.apply_service(connection, sources, new_id=installation.new_id)
    )


def settle_in() -> None:
    """For a process that makes passes, after the fork: what is loaded by now stays, so nobody need look at it again.

    A batch makes ten thousand short-lived values. The collector's usual pace walks through the whole program for them,
    which took a third of the time of a call.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def locate(settings: Settings) -> Servers | None:
    """The embedded servers for whatever DATABASE_URL and REDIS_URL do not name; None when both are set."""
    if settings.database_url is not None and settings.redis_url is not None:
        return None
    return running_or_started(settings.state_dir)


def urls(settings: Settings, servers: Servers | None) -> tuple[str, str]:
    """(database, redis): the environment's, else the embedded servers'."""
    database = settings.database_url.get_secret_value() if settings.database_url else None
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    if servers is not None:
        return database or servers.database_url, redis or servers.redis_url
    assert database is not None
    assert redis is not None
    return database, redis


def broker_url(settings: Settings) -> str:
    """Where Celery's queues are: REDIS_URL, else the Valkey of the `dripwell run` that holds the state directory."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    info = running(settings.state_dir)
    if info is not None and "redis" in info.addresses:
        return info.addresses["redis"]
    raise ConfigurationError(
        "REDIS_URL is not set and no `dripwell run` holds this directory: start one, or set REDIS_URL"
    )


def made_secrets(settings: Settings) -> dict[str, str]:
    """The installation's secrets: from the environment, else made once and kept in the state directory."""
    kept: dict[str, str] = {}

    def kept_or_made() -> dict[str, str]:
        if not kept:
            kept.update(
                remembered(
                    settings.state_dir / "secrets.json",
                    lambda: {name: secrets.token_hex(32) for name in ("secret_key", "unsubscribe_key", "pepper")},
                )
            )
        return kept

    given = {
        "secret_key": settings.secret_key,
        "unsubscribe_key": settings.unsubscribe_key,
        "pepper": settings.pepper,
    }
    return {
        name: value.get_secret_value() if value is not None else kept_or_made()[name] for name, value in given.items()
    }


def run_pass(installation: Installation, queue: str) -> int:
    """One pass of a queue, 12 seconds at most; returns what it moved. What is left rings again by itself."""
    until = time.monotonic() + PASS_SECONDS

    def out_of_time() -> bool:
        return time.monotonic() > until

    # Unsubscribes that were answered while PostgreSQL was away come before anything else.
    _replay(installation)
    moved = 0 if _must_wait(installation, queue) else _passes(installation, out_of_time)[queue]()
    with installation.database.transaction() as connection:
        workers.passed(connection, _queue_of(queue), installation.owner, progress=moved > 0)
        installation.limiter.local_share = 1 / max(1, at_work.alive(connection))
        if out_of_time():
            campaigns.ring(connection, queue)
    return moved


def _must_wait(installation: Installation, queue: str) -> bool:
    """Whether this queue may do nothing now: the record went back in time, or its clock is in doubt."""
    right = installation.clock.look(installation.database, installation.fast.now())
    now = time.monotonic()
    if now - installation.looked.get("witnesses", -LOOK_AGAIN) >= LOOK_AGAIN:
        installation.looked["witnesses"] = now
        in_quarantine(installation)
    if queue in ("ingest", "settle", "audit"):
        return False
    return quarantine.is_on(installation.database) or (queue == "plan" and not right)


def in_quarantine(installation: Installation) -> bool:
    """Compare the record with its witnesses; True: nobody is called until a person has looked at it."""
    installation.journal.look()
    return quarantine.watch(installation.database, installation.witnesses, installation.journal_folder)


def _replay(installation: Installation) -> int:
    return leave.replay(installation.database, spool.path_in(installation.settings.state_dir))


def _passes(installation: Installation, out_of_time: Callable[[], bool]) -> Mapping[str, Callable[[], int]]:
    database = installation.database

    def sending(lane: Lane) -> Callable[[], int]:
        return lambda: send.send(sender(installation), lane, out_of_time=out_of_time)

    def settling() -> int:
        with database.transaction() as connection:
            pace.look(connection)
        moved = reputation.watch(database, installation.site) + settle.settle(
            database,
            installation.provider,
            installation.fast,
            installation.patience,
            owner=installation.owner,
            is_alive=_is_alive,
            out_of_time=out_of_time,
        )
        # Last, since it fails on a full disk: whatever else there is to settle does not wait for that.
        leave.keep(database, installation.journal, installation.settings.state_dir)
        return moved

    def ingesting() -> int:
        if installation.door is None:
            return 0
        return ingest.ingest(
            database,
            installation.door,
            hash_of=lambda address: address_hash(installation.pepper, address),
            out_of_time=out_of_time,
        )

    return {
        "plan": lambda: plan.plan(database, installation.versions, out_of_time=out_of_time),
        "ingest": ingesting,
        "settle": settling,
        "audit": lambda: _audit(installation),
        "erase": lambda: carry_on_erasing(installation, out_of_time),
        "sync": lambda: _syncing(installation, out_of_time),
        "retain": lambda: retention.run(
            database,
            keep_events=installation.site.keep_events,
            keep_quiet=installation.site.keep_quiet_subscribers,
            pepper=installation.pepper,
            out_of_time=out_of_time,
        ),
        **{lane.value: sending(lane) for lane in Lane},
    }


def _queue_of(name: str) -> str:
    return "keep" if name in ("settle", "audit", "erase", "retain", "sync") else name


def carry_on_erasing(installation: Installation, out_of_time: Callable[[], bool]) -> int:
    """Whatever an erasure still waits for, as far as it goes now; returns how many steps were made."""
    provider = installation.provider
    return erase.carry_on(
        installation.database,
        eraser=provider if isinstance(provider, SendGrid) else None,
        provider=provider.name,
        pepper=installation.pepper,
        out_of_time=out_of_time,
        failpoint=installation.failpoint,
    )


def _audit(installation: Installation) -> int:
    database = installation.database
    with database.snapshot() as connection:
        broken = invariants.broken(connection, _pace(installation.site))
        said = audit.recounted(connection, installation.versions)
    for name, rows in broken.items():
        log.critical("an invariant does not hold: %s, rows %s", name, rows)
    with database.transaction() as connection:
        said += audit.fast_set(connection, installation.redis_url) + _silent(installation, connection)
        workers.forget_old(connection)
        api_keys.forget_answers(connection)
    said += quarantine.journal_behind(database, installation.journal_folder, installation.owner.host)
    for sentence in said:
        log.critical("%s", sentence)
    quarantine.forget_old(database, installation.journal_folder, datetime.now(UTC))  # noqa: TID251  # two clocks must agree
    return len(broken) + len(said)


def _silent(installation: Installation, connection: Connection) -> list[str]:
    provider = installation.provider
    return ingest.silent(connection, provider=provider.name) if provider.capabilities.events else []


def _pace(site: Site) -> invariants.Pace:
    limits, usual = site.limits, invariants.Pace()
    gap = limits.gap.at_most() if limits.gap else timedelta(0)
    if limits.emails is None or limits.per is None:
        return invariants.Pace(gap, usual.emails, timedelta(0))  # no limit
    return invariants.Pace(gap, limits.emails, limits.per.at_most())


def sender(installation: Installation) -> send.Sender:
    """What a send pass needs, out of an installation."""
    return send.Sender(
        database=installation.database,
        fast=installation.fast,
        provider=installation.provider,
        versions=installation.versions,
        keys=installation.keys,
        owner=installation.owner,
        new_id=installation.new_id,
        failpoint=installation.failpoint,
        replay=lambda: _replay(installation),
        journal=installation.journal,
        doubt=lambda: quarantine.found_out(installation.database, installation.witnesses, installation.journal_folder),
        site=installation.site,
        limiter=installation.limiter,
    )


def _patience(site: Site, *, live: bool, logs: bool) -> Patience:
    """How long evidence is waited for, and what happens then: as `delivery.on_unknown` says, else as proof allows."""
    usual = Patience() if live else SANDBOX
    policy = site.delivery.on_unknown
    return replace(usual, resend=logs if policy is None else policy == "resend")


def _provider(settings: Settings) -> SendGrid | Smtp:
    if settings.smtp_url is not None:
        relay = parse_url(settings.smtp_url.get_secret_value())
        return Smtp(
            relay.host,
            relay.port,
            now=lambda: datetime.now(UTC),  # noqa: TID251  # of the Date header alone
            security=relay.security,
            user=relay.user,
            password=relay.password,
            baa=settings.smtp_baa,
            bounces=settings.smtp_bounces,
        )
    if settings.sendgrid_api_key is not None:
        return SendGrid(
            settings.sendgrid_api_key.get_secret_value(), settings.provider_url or REAL_PROVIDER, settings.webhook_key
        )
    return SendGrid(SANDBOX_KEY, settings.provider_url or _running_sandbox(settings), _sandbox_webhook_key(settings))


def _syncing(installation: Installation, out_of_time: Callable[[], bool]) -> int:
    lists = provider_lists_of(installation)
    try:
        moved = sync.sync(
            installation.database,
            lists,
            installation.fast,
            hash_of=lambda address: address_hash(installation.pepper, address),
            out_of_time=out_of_time,
        )
    finally:
        if lists is not None:
            lists.close()
    return moved.anything


def begin_syncing(database_url: str) -> None:
    """Let the provider's lists be compared with the record at once, now that something starts to run."""
    database = Database(database_url, pool=1)
    try:
        schema.upgrade(database)
        with database.transaction() as connection:
            sync.begin(connection)
    finally:
        database.close()


def provider_lists_of(installation: Installation) -> SendGridLists | None:
    """The provider's suppression lists, for whoever closes them again; None when it has none (SMTP)."""
    settings = installation.settings
    if settings.smtp_url is not None:
        return None
    if settings.sendgrid_api_key is not None:
        key, usual = settings.sendgrid_api_key.get_secret_value(), REAL_PROVIDER
    else:
        key, usual = SANDBOX_KEY, _running_sandbox(settings)
    return SendGridLists(key, settings.provider_url or usual)


def _running_sandbox(settings: Settings) -> str:
    info = running(settings.state_dir)
    if info is not None and "sandbox" in info.addresses:
        return info.addresses["sandbox"]
    return "http://127.0.0.1:8025"  # nobody answers there unless somebody started `dripwell sandbox`


def sandbox_folder(settings: Settings) -> Path:
    """Where the sandbox keeps its ledger and its keys."""
    return settings.state_dir / "sandbox"


def _sandbox_webhook_key(settings: Settings) -> str | None:
    if settings.webhook_key is not None:
        return settings.webhook_key
    path = sandbox_folder(settings) / "webhook_public.txt"
    return path.read_text(encoding="ascii").strip() if path.exists() else None


def _keys(settings: Settings) -> tuple[Keys, bytes]:
    found = made_secrets(settings)
    return (
        Keys(links=(found["secret_key"].encode(),), unsubscribe=(found["unsubscribe_key"].encode(),)),
        found["pepper"].encode(),
    )


def _site_sources(root: Path) -> dict[str, str]:
    found = {}
    for path in ("config/site.yaml", "config/segments.yaml"):
        try:
            found[path] = (root / path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{path} is not here: run Dripwell from the folder that holds campaigns/, config/ and templates/"
            ) from error
        except UnicodeDecodeError as error:
            raise ContentError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    return found


def _theme_sources(installation: Installation) -> dict[str, str]:
    folder = installation.root / "templates" / "email"
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".j2", ".yaml", ".md"))
    return {p.relative_to(installation.root).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"  # then only leases, not pids, tell that an owner is gone after a reboot


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _failpoint(settings: Settings) -> Callable[[str], None]:
    """Tests kill or stop a real process at a named point, at its n-th passing: `after_mark` or `after_mark:3`."""
    wanted = {
        text.partition(":")[0]: (int(text.partition(":")[2] or 1), number)
        for text, number in ((settings.crash_at, signal.SIGKILL), (settings.stall_at, signal.SIGSTOP))
        if text
    }
    passed: dict[str, int] = {}

    def failpoint(name: str) -> None:
        if name in wanted:
            passed[name] = passed.get(name, 0) + 1
            if passed[name] == wanted[name][0]:
                os.kill(os.getpid(), wanted[name][1])

    return failpoint
