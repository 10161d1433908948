"""The processes of one machine: servers, sandbox, web, beat, two workers; `dripwell run` and the demo start them."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dripwell import bootstrap
from dripwell.embedded.lock import Held
from dripwell.embedded.process import Process
from dripwell.embedded.servers import Prepared, prepare
from dripwell.embedded.state import free_port
from dripwell.settings import Settings

SANDBOX_PORT = 8025


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that runs together. `addresses` is what `running()` shows to other commands."""

    processes: tuple[Process, ...]
    addresses: Mapping[str, str]
    database_url: str
    redis_url: str
    web_url: str
    sandbox_url: str | None
    servers: Prepared

    def settings(self, settings: Settings) -> Settings:
        """The settings that the fleet's own processes see."""
        return settings.model_copy(
            update={"provider_url": self.sandbox_url or settings.provider_url, "base_url": self.web_url}
        )


def assemble(settings: Settings, held: Held, root: Path, *, seed: int | None = None) -> Fleet:
    """Choose free ports and describe every process; nothing is started. `seed` repeats the sandbox's ids."""
    folder = held.folder
    servers = prepare(held, database=settings.database_url is None, redis=settings.redis_url is None)
    database_url = settings.database_url.get_secret_value() if settings.database_url else str(servers.database_url)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else str(servers.redis_url)
    web_port = free_port(folder, "web", wish=settings.web_port or bootstrap.WEB_PORT)
    web_url = f"http://127.0.0.1:{web_port}"
    changes = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DRIPWELL_STATE_DIR": str(folder),
        "DRIPWELL_WEB_PORT": str(web_port),
        "PYTHONUNBUFFERED": "1",
    }
    sandbox_url: str | None = None
    processes = [*servers.processes]
    if not settings.live:
        sandbox_port = free_port(folder, "sandbox", wish=settings.sandbox_port or SANDBOX_PORT)
        sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        changes |= {"DRIPWELL_PROVIDER_URL": sandbox_url, "DRIPWELL_BASE_URL": web_url}
        processes.append(_sandbox(folder, root, sandbox_port, f"{web_url}/webhooks/sendgrid", seed))
    environment = Settings.environment(**changes)

    def python(name: str, *arguments: str, port: int | None = None, grace: float = 10.0, wait: bool = False) -> Process:
        return Process(
            name=name,
            argv=(sys.executable, "-m", *arguments),
            env=environment,
            cwd=root,
            grace=grace,
            wait=wait,
            ready=None if port is None else (lambda: listens(port)),
            death_signal=signal.SIGTERM,
        )

    processes += [
        python("web", "dripwell.web", "--port", str(web_port), port=web_port, wait=True),
        python("beat", *BEAT),
        python("service", "dripwell.workers.bell", "--queues", ",".join(bootstrap.QUEUES["service"]), "--children", "1",
               grace=55.0),
        python("worker", "dripwell.workers.bell", "--queues", ",".join(bootstrap.QUEUES["rest"]), "--children", "2",
               grace=55.0),
    ]  # fmt: skip
    addresses = {"postgres": database_url, "redis": redis_url, "web": web_url}
    if sandbox_url is not None:
        addresses["sandbox"] = sandbox_url
    return Fleet(tuple(processes), addresses, database_url, redis_url, web_url, sandbox_url, servers)


BEAT = (
    "celery",
    "-q",  # no banner; errors still show
    "-A",
    "dripwell.workers",
    "beat",
    "--scheduler",
    "celery.beat:Scheduler",
    "--pidfile=",
    "-l",
    "WARNING",
)
"""Arguments of a plain beat. The schedule is in memory: due times are rows, so it has nothing to remember."""


def _sandbox(folder: Path, root: Path, port: int, webhook: str, seed: int | None) -> Process:
    arguments = ["-m", "dripwell.sandbox", "--port", str(port), "--state", str(folder / "sandbox")]
    arguments += ["--webhook", webhook, "--key", bootstrap.SANDBOX_KEY]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    return Process(
        name="sandbox",
        argv=(sys.executable, *arguments),
        env=Settings.environment(PYTHONUNBUFFERED="1"),
        cwd=root,
        ready=lambda: listens(port),
        wait=True,
        death_signal=signal.SIGTERM,
    )


def listens(port: int) -> bool:
    """Whether something takes connections on this port of the loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.25):
            return True
    except OSError:
        return False
