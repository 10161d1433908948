"""schemathesis against the API: whatever it makes up from the OpenAPI document is answered as the document says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from dripwell.bootstrap import Installation
from dripwell.web.api.app import PREFIX
from dripwell.web.api.shapes import REPEAT_KEY
from dripwell.web.app import create_app
from tests.integration.callers import key_for
from tests.integration.conftest import Mailed


@pytest.fixture
def fresh_keys() -> Iterator[None]:
    """A key that was used for another request is refused, which no document can say: so each request has its own."""
    numbers = count()

    def before_call(context: object, case: schemathesis.Case, kwargs: object) -> None:
        key = case.headers.get("Idempotency-Key")
        if isinstance(key, str) and re.fullmatch(REPEAT_KEY, key):
            case.headers["Idempotency-Key"] = f"{next(numbers)}-{key}"[:255]

    schemathesis.hook("before_call")(before_call)
    yield
    schemathesis.hooks.unregister(before_call)


@pytest.mark.usefixtures("fresh_keys")
def test_schemathesis_finds_nothing_against_the_api(installation: Installation, mailed: Mailed) -> None:
    config = SchemathesisConfig.from_dict(
        {
            "seed": 20261102,
            "auth": {"openapi": {"key": {"bearer": key_for(installation)}}},
            "checks": {"enabled": True},
            "generation": {"mode": "all", "max-examples": 40, "deterministic": True, "no-shrink": True},
            "workers": 1,
        }
    )
    document = schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", create_app(installation), config=config)
    found: list[str] = []
    cases: dict[str, int] = {}
    for event in from_schema(document).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            found.append(f"{event.label}: {event.value}")
        if isinstance(event, events.ScenarioFinished):
            cases[event.phase.value] = cases.get(event.phase.value, 0) + len(event.recorder.cases)
            found += [
                f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.failure_info is not None
            ]
    assert found == []
    assert cases["coverage"] > 100
    assert cases["fuzzing"] >= 200
