"""The Celery app. A doorbell may be lost or doubled, so nothing here buys reliability from Celery."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.settings import Settings

from .schedule import SCHEDULE

settings = Settings.read()
app = Celery("dripwell", broker=bootstrap.broker_url(settings), include=["dripwell.workers.tasks"])
app.conf.update(
    # Early ack, no retry, no reject: a lost doorbell costs one beat; late acks repeat a poison task for ever.
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    # No result is read by anybody, so none is kept: results leak (celery #8882).
    task_ignore_result=True,
    result_backend=None,
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    # A misspelled queue is an error, not a queue that nobody serves.
    task_create_missing_queues=False,
    task_queues={name: {} for names in bootstrap.QUEUES.values() for name in names},
    task_default_queue="keep",
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=500,
    worker_max_memory_per_child=300_000,
    # No soft shutdown: it sleeps its whole time as soon as one task is active. SIGTERM is a warm shutdown, which ends
    # when the passes under way have ended; whoever stops the worker gives it longer than a provider call.
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_transport_options={
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "visibility_timeout": 3600,
    },
    beat_schedule=SCHEDULE,
    beat_max_loop_interval=2,
    timezone="UTC",
)

_open: dict[int, Installation] = {}


def installation() -> Installation:
    """This process's installation, opened at its first use: never before the fork."""
    pid = os.getpid()
    if pid not in _open:
        database_url, redis_url = bootstrap.urls(settings, bootstrap.locate(settings))
        _open[pid] = bootstrap.connect(settings, Path.cwd(), database_url, redis_url)
        bootstrap.settle_in()
    return _open[pid]


@worker_process_init.connect
def die_with_parent(**_: Any) -> None:
    """A child whose parent is killed goes too: its batch is settled by evidence, a stray sender by nobody."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@setup_logging.connect
def log_plainly(**_: Any) -> None:
    """Warnings and worse, without task chatter; no line carries an address or a token."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("dripwell").setLevel(logging.INFO)
