"""The same request twice has one effect: its answer is kept beside what it did, under the sender's Idempotency-Key."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from starlette.responses import JSONResponse

from dripwell.bootstrap import Connection, Installation
from dripwell.services.keys import Caller
from dripwell.storage import api_keys
from dripwell.web.api.problem import Problem


class Done(NamedTuple):
    """What a request did: its answer, and whom it was about."""

    answer: BaseModel
    subscriber_id: int
    status: int = 200


def once(
    installation: Installation,
    caller: Caller,
    repeat_key: str | None,
    request: Mapping[str, Any],
    work: Callable[[Connection], Done],
) -> JSONResponse:
    """Carry out `work` in one transaction and answer; under a key that was used before, answer what was answered then.

    `request` is what makes two requests the same: path and body. Of simultaneous ones the first is carried out and the
    others wait for it. An error keeps nothing: the request can be mended and sent under the same key.
    """
    hashed = hmac.new(installation.pepper, json.dumps(request, sort_keys=True).encode(), hashlib.sha256).digest()

    def attempt(connection: Connection) -> JSONResponse:
        if repeat_key is not None:
            before = api_keys.claim(connection, caller.key_id, repeat_key, hashed)
            if before is not None:
                return _again(before, hashed)
        done = work(connection)
        body = done.answer.model_dump(mode="json")
        if repeat_key is not None:
            api_keys.keep_answer(
                connection,
                caller.key_id,
                repeat_key,
                status=done.status,
                body=body,
                subscriber_id=done.subscriber_id,
            )
        return JSONResponse(body, status_code=done.status)

    return installation.database.retrying(attempt)


def _again(before: api_keys.Answer, hashed: bytes) -> JSONResponse:
    if not hmac.compare_digest(before.request_hash, hashed):
        raise Problem(
            422,
            "key_used",
            "this Idempotency-Key was used for another request in the last 24 hours",
            "send a new request under a new key, and only the very same one under the same",
            at=["Idempotency-Key"],
        )
    return JSONResponse(before.body, status_code=before.status, headers={"idempotent-replayed": "true"})
