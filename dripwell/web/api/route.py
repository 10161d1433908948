"""How each request is taken: bounded, its key checked, and whatever goes wrong said in the one shape."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from dripwell.bootstrap import Connection, Installation
from dripwell.core.errors import NotFoundError, RefusedError, UnavailableError
from dripwell.services import keys
from dripwell.services.keys import Caller
from dripwell.storage import clock
from dripwell.storage.api_keys import StillAnswering
from dripwell.web.api.body import read_json
from dripwell.web.api.problem import Problem

log = logging.getLogger("dripwell.web")

BEARER = HTTPBearer(
    auto_error=False, scheme_name="key", bearerFormat="dw_…", description="A key of `dripwell keys add`."
)
_CHALLENGE = 'Bearer realm="dripwell"'


class Bounded(APIRoute):
    """A route whose body is read by us, and whose errors are ours."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler between our door and our errors."""
        inner = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if request.method == "POST":
                    request = _again(request, await read_json(request))
                response = await inner(request)
            except Exception as error:
                problem = _problem(error)
                if problem is None:
                    raise
                response = problem.answer()
            response.headers.update(getattr(request.state, "limits", {}))
            return response

        return answer


def _again(request: Request, body: bytes) -> Request:
    """The same request, whose body has been read, with the body still to come."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _problem(error: Exception) -> Problem | None:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error)
        case StillAnswering():
            return Problem(
                409,
                "still_answering",
                "the same request, under the same Idempotency-Key, is being carried out",
                "send it again in a few seconds: you get its answer",
                who="nobody",
                headers={"retry-after": "5"},
            )
        case NotFoundError():
            return Problem(404, "not_found", *_sentences(error))
        case RefusedError():
            return Problem(409, "refused", *_sentences(error))
        case UnavailableError():
            log.warning("a request to the API could not be answered: PostgreSQL does not answer")
            return Problem(
                503,
                "unavailable",
                "the record does not answer; nothing was changed",
                "send the same request again in a minute",
                who="nobody",
                headers={"retry-after": "60"},
            )
    return None


def _sentences(error: Exception) -> tuple[str, str]:
    problem, colon, next = str(error).partition(": ")
    return problem, next if colon else "change that, then send the request again"


def _invalid(error: RequestValidationError) -> Problem:
    """The fields that are wrong and why, without what stood in them."""
    found = error.errors()
    at = sorted({".".join(_name(part) for part in one["loc"][1:]) or str(one["loc"][0]) for one in found})
    words = sorted({_WORDS.get(one["type"], str(one["msg"])) for one in found})
    return Problem(
        422,
        "invalid",
        f"the request is not as the document says: {'; '.join(words)}",
        "compare the fields in `at` with /api/v1/openapi.json",
        at=[place[:200] for place in at[:50]],
    )


_WORDS = {
    "extra_forbidden": "a field that is not known",
    "missing": "a field is missing",
    "string_pattern_mismatch": "a text has another form",
    "literal_error": "a value is none of those there are",
    "json_invalid": "the body is not JSON",
}


def _name(part: object) -> str:
    # A key of the sender's own may be anything; what it is called is told only when it is a plain word.
    text = str(part)
    return text if text.replace("_", "").replace("-", "").isalnum() and text.isascii() else "?"


def allow(installation: Installation, scope: str) -> Callable[..., None]:
    """A dependency that lets a request with a key of this scope through, as `state.caller`: else 401, 403 or 429."""

    def check(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if given is None:
            raise _unknown("the request names no key", _CHALLENGE)

        def work(connection: Connection) -> Caller | None:
            return keys.admit(connection, given.credentials, clock.read(connection))

        caller = installation.database.retrying(work)
        if caller is None:
            raise _unknown("this key is not in force", f'{_CHALLENGE}, error="invalid_token"')
        left = max(0, caller.per_minute - caller.use.used)
        request.state.limits = {
            "ratelimit-policy": f'"minute";q={caller.per_minute};w=60',
            "ratelimit": f'"minute";r={left};t={caller.use.seconds_left}',
        }
        if caller.use.used > caller.per_minute:
            raise Problem(
                429,
                "too_many",
                f"this key may make {caller.per_minute} requests a minute",
                f"wait {caller.use.seconds_left} seconds",
                who="nobody",
                headers={"retry-after": str(caller.use.seconds_left)},
            )
        if scope not in caller.scopes:
            raise Problem(
                403,
                "not_allowed",
                f"this key may not do this: it lacks the scope {scope}",
                f"ask for a key with it: dripwell keys add NAME --scope {scope}",
                who="operator",
                headers={"www-authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
            )
        request.state.caller = caller

    return check


def _unknown(problem: str, challenge: str) -> Problem:
    return Problem(
        401,
        "no_key",
        problem,
        "send `Authorization: Bearer dw_…` with a key in force: dripwell keys list",
        headers={"www-authenticate": challenge},
    )
