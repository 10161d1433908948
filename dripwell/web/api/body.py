"""The body of a request, bounded before it is parsed, and parsed before anything else may read it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.requests import Request

from dripwell.web.api.problem import Problem
from dripwell.web.visit import read_body

LARGEST = 64 * 1024


async def read_json(request: Request) -> bytes:
    """The raw body, once it is certain that it is JSON that can be kept: UTF-8, no deeper than a parser goes, no
    doubled key, no NaN, no half of a surrogate pair. Raises Problem with 413, 415 or 400."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8") or coding != "identity":
        raise Problem(
            415,
            "not_json",
            "the body must be JSON in UTF-8, not compressed",
            "send `Content-Type: application/json` and no Content-Encoding",
        )
    body = await read_body(request, LARGEST)
    if body is None:
        raise Problem(
            413,
            "too_large",
            f"the body is larger than {LARGEST // 1024} KB",
            "send one subscriber or event a request; many people at once come in with `dripwell subscribers import`",
        )
    _parse(body)
    return body


def _parse(body: bytes) -> None:
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_double)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    except RecursionError as error:
        raise _bad("it is nested too deeply") from error
    except UnicodeError as error:
        raise _bad("it holds bytes or escapes that are no text in UTF-8") from error
    except ValueError as error:  # malformed, or a number of thousands of digits
        raise _bad(str(error) if isinstance(error, _Told) else "it is not well formed") from error


class _Told(ValueError):
    """Refused by us, in words that repeat nothing of the body."""


def _no_constant(name: str) -> NoReturn:
    raise _Told("NaN and Infinity are no numbers in JSON")


def _no_double(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Told("an object names a key twice")
    return found


def _bad(why: str) -> Problem:
    return Problem(400, "bad_json", f"the body cannot be read as JSON: {why}", "send one JSON object in UTF-8")
