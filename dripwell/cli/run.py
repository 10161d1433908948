"""`dripwell run` starts everything on one machine; `web`, `worker`, `beat` and `sandbox` start one part alone."""

from __future__ import annotations

import os
import sys

import click

from dripwell import bootstrap
from dripwell.cli import fleet
from dripwell.cli.opening import project, ready_to_mail
from dripwell.cli.output import note
from dripwell.core.errors import UnavailableError
from dripwell.embedded.lock import hold
from dripwell.embedded.supervisor import Supervisor
from dripwell.settings import Settings


@click.command()
def run() -> None:
    """Start everything this machine needs, until Ctrl-C.

    \b
    dripwell run
    DRIPWELL_WEB_PORT=9000 dripwell run
    DATABASE_URL=postgresql://… REDIS_URL=redis://… dripwell run
    """
    root = project()
    settings = Settings.read()
    ready_to_mail(settings, root)  # once and before any server starts, not once for every process
    with hold(settings.state_dir, lasting=True) as held:
        crew = fleet.assemble(settings, held, root)
        with crew.servers:

            def ready() -> None:
                held.announce(crew.addresses)  # other commands wait for this before they use our servers
                try:
                    bootstrap.begin_syncing(crew.database_url)
                except UnavailableError:  # the passes find that out, too, and compare the lists within a day
                    note("the record does not answer just now; the provider's lists are compared later")
                note("")
                note(f"ready   pages {crew.web_url}/healthz")
                if crew.sandbox_url:
                    note(f"        inbox {crew.sandbox_url}/   (the sandbox: nothing leaves this machine)")
                note("        Ctrl-C stops everything; what was recorded stays")

            Supervisor(held.folder, sys.stdout).run(crew.processes, on_ready=ready)
    note("stopped")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (default: DRIPWELL_WEB_PORT or 8000).")
def web(host: str, port: int | None) -> None:
    """Serve the public pages and the webhook.

    \b
    dripwell web
    dripwell web --port 9000
    dripwell web --host 0.0.0.0 --port 80
    """
    ready_to_mail(Settings.read(), project())
    _become("dripwell.web", "--host", host, *(["--port", str(port)] if port else []))


@click.command()
@click.option("--queues", help="Queues to serve, separated by commas (default: all).")
@click.option(
    "--children", type=click.IntRange(1, 32), default=2, show_default=True, help="Processes that do the work."
)
def worker(queues: str | None, children: int) -> None:
    """Run a Celery worker with its bell.

    \b
    dripwell worker
    dripwell worker --queues confirm,booking --children 1
    celery -A dripwell.workers worker -Q drip     (plain, without the bell)
    """
    every = [name for names in bootstrap.QUEUES.values() for name in names]
    chosen = [name.strip() for name in queues.split(",")] if queues else every
    unknown = [name for name in chosen if name not in every]
    if unknown:
        raise click.UsageError(f"there is no queue `{unknown[0]}`; queues are: {', '.join(every)}")
    ready_to_mail(Settings.read(), project())
    _become("dripwell.workers.bell", "--queues", ",".join(chosen), "--children", str(children))


@click.command()
def beat() -> None:
    """Ring every few seconds, so that work goes on even when a ring was lost.

    \b
    dripwell beat
    DATABASE_URL=postgresql://… REDIS_URL=redis://… dripwell beat
    celery -A dripwell.workers beat     (the same, plain)
    """
    _become(*fleet.BEAT)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=fleet.SANDBOX_PORT, show_default=True)
@click.option("--webhook", metavar="URL", help="Where it posts events (default: the pages of this machine).")
@click.option("--seed", type=int, help="Repeat the provider ids of an earlier course.")
def sandbox(port: int, webhook: str | None, seed: int | None) -> None:
    """Run the provider sandbox: the same API as SendGrid, an inbox to look at, signed events.

    \b
    dripwell sandbox
    dripwell sandbox --port 8026
    dripwell sandbox --webhook http://127.0.0.1:8000/webhooks/sendgrid
    """
    settings = Settings.read()
    target = webhook or f"http://127.0.0.1:{settings.web_port or bootstrap.WEB_PORT}/webhooks/sendgrid"
    arguments = ["--port", str(port), "--state", str(bootstrap.sandbox_folder(settings)), "--webhook", target]
    arguments += ["--key", bootstrap.SANDBOX_KEY]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    _become("dripwell.sandbox", *arguments)


def _become(module: str, *arguments: str) -> None:
    # Nobody imports `workers` or `sandbox`: this process becomes theirs, so signals reach them without a middleman.
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], Settings.environment())


commands: list[click.Command] = [run, web, worker, beat, sandbox]
