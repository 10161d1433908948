"""Everything that goes wrong is said in one shape: what, who must act, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from starlette.responses import JSONResponse

Who = Literal["sender", "operator", "nobody"]
"""Who must act: whoever sends the request, whoever runs this installation, or nobody but time."""


class Problem(Exception):
    """A request that is not carried out. Nothing was changed."""

    def __init__(
        self,
        status: int,
        code: str,
        problem: str,
        next: str,
        *,
        who: Who = "sender",
        at: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`code` is for programs and lasting; `problem` and `next` are sentences; `at` names the fields concerned."""
        super().__init__(code)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "error": {"code": code, "problem": problem, "who": who, "next": next, "at": list(at)},
        }

    def answer(self) -> JSONResponse:
        """The response that says it."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def no_such_path() -> Problem:
    """A path that is none of ours."""
    return Problem(404, "no_such_path", "there is nothing at this path", "see /api/v1/openapi.json for what there is")


def wrong_method(allow: str) -> Problem:
    """A path of ours, asked in another way."""
    return Problem(
        405,
        "method_not_allowed",
        "this path does not answer to this method",
        f"use {allow}: see /api/v1/openapi.json",
        headers={"allow": allow},
    )


def crashed() -> Problem:
    """A mistake of ours."""
    return Problem(
        500,
        "fault",
        "this is a fault of Dripwell, not yours; nothing was changed",
        "try again once; if it stays, tell whoever runs this installation the time of the request",
        who="operator",
    )
