"""One world a module, and a worker that goes on when another one has been broken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import Worker, World


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Servers, sandbox, pages and the module's CREW. At its end everybody gets everything, and all of it is judged."""
    folder = tmp_path_factory.mktemp("world")
    folder.chmod(0o755)
    with World(folder, crew=getattr(request.module, "CREW", ())) as made:
        yield made
        made.worker()
        made.finish(60)
        verdict = made.verdict()
        assert verdict.clean, verdict.wrong


@pytest.fixture(scope="module")
def second(world: World) -> Worker:
    """A worker that rests."""
    worker = world.worker("--resting")
    worker.hear("resting")
    return worker


@pytest.fixture
def other(world: World, second: Worker) -> Iterator[Worker]:
    """The worker that goes on when a test says so. Afterwards it is the only one."""
    yield second
    world.end_workers(besides=second)
