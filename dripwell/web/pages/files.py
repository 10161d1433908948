"""Files that are the same for everybody: the style sheet, pictures of emails, and two that browsers ask for."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import FileResponse, PlainTextResponse, Response

from dripwell.core.errors import NotFoundError
from dripwell.web.look import STYLE
from dripwell.web.visit import Visit

_PICTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}\.(?:jpg|png|gif)", re.ASCII)
_A_YEAR = {"cache-control": "public, max-age=31536000, immutable"}
_A_WEEK = {"cache-control": "public, max-age=604800"}


def style(visit: Visit) -> Response:
    """The style sheet; its address changes with its content."""
    return Response(STYLE, media_type="text/css", headers=_A_YEAR)


def art(visit: Visit) -> Response:
    """A picture of the email theme. Raises NotFoundError for any other name."""
    name = visit.path["file"]
    file: Path = visit.installation.root / "templates" / "email" / "art" / name
    if _PICTURE.fullmatch(name) is None or not file.is_file():
        raise NotFoundError("there is no such picture")
    return FileResponse(file, headers=_A_WEEK)


def no_icon(visit: Visit) -> Response:
    """There is no icon, and browsers need not ask again."""
    return Response(status_code=204, headers=_A_WEEK)


def robots(visit: Visit) -> Response:
    """Nothing here is for a search engine."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n", headers=_A_WEEK)
