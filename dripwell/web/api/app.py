"""The API as one application, mounted at /api/v1, and the document that describes it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dripwell.bootstrap import Installation
from dripwell.web.api import vocabulary
from dripwell.web.api.endpoints import router
from dripwell.web.api.problem import Problem, crashed, no_such_path, wrong_method
from dripwell.web.api.shapes import ErrorAnswer

PREFIX = "/api/v1"
_ABOUT = (
    "For other programs: add subscribers, tell what happened to them, let them into campaigns, read the numbers. "
    "Every request carries a key of `dripwell keys add`. Every error has one shape and says who must act. "
    "A status of 422 means that the request is not as this document says; 409, that it is, and cannot be carried out "
    "as things stand."
)
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "string"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750.", "required": True, "schema": {"type": "string"}}}
_ERRORS: dict[int, tuple[str, dict[str, Any]]] = {
    400: ("The body is not JSON that can be read.", {}),
    401: ("The request names no key, or none in force.", _CHALLENGE),
    403: ("The key may not do this.", _CHALLENGE),
    404: ("There is no such subscriber or campaign.", {}),
    409: ("The request is well formed and cannot be carried out as things stand.", {}),
    413: ("The body is too large.", {}),
    415: ("The body is not declared as JSON.", {}),
    422: ("The request is not as this document says.", {}),
    429: ("The key has used up its minute.", _RETRY),
    503: ("The record does not answer. Nothing was changed.", _RETRY),
}


def create_api(installation: Installation) -> FastAPI:
    """The API for one installation. It holds no state of its own."""
    api = FastAPI(
        title="Dripwell",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        root_path_in_servers=False,
        servers=[{"url": PREFIX}],
        exception_handlers={HTTPException: _http_error, Exception: _crash},
        redirect_slashes=False,
    )
    api.include_router(router(installation, _declared))
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            made = get_openapi(
                title=api.title, version=api.version, description=_ABOUT, routes=api.routes, servers=api.servers
            )
            vocabulary.listed(installation.site, made["components"]["schemas"])
            document.update(made)
        return document

    api.openapi = openapi  # type: ignore[method-assign]
    return api


def _declared(kind: str, *more: int) -> dict[int | str, dict[str, Any]]:
    """The errors an endpoint may answer with, as the document says them; `kind`: read, or body if it takes one."""
    statuses = {401, 403, 429, 503, *more} | ({400, 413, 415} if kind == "body" else set())
    return {
        status: {"model": ErrorAnswer, "description": words, **({"headers": headers} if headers else {})}
        for status, (words, headers) in sorted(_ERRORS.items())
        if status in statuses
    }


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return no_such_path().answer()
    if error.status_code == 405:
        return wrong_method((error.headers or {}).get("Allow", "another method")).answer()
    return Problem(
        error.status_code, "refused", "the request cannot be read", "compare it with /api/v1/openapi.json"
    ).answer()


async def _crash(request: Request, error: Exception) -> JSONResponse:
    return crashed().answer()
