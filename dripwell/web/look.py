"""How a page becomes a response: one calm look, every word escaped, nothing fetched from anywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from dripwell.core import calls
from dripwell.core.address import masked
from dripwell.core.campaign import Site

_HERE = Path(__file__).parent
STYLE = (_HERE / "static" / "app.css").read_bytes()
STYLE_VERSION = hashlib.sha256(STYLE).hexdigest()[:10]

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex, nofollow",
    "cache-control": "no-store",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every response that does not say otherwise."""


class Look:
    """Renders pages for one clinic."""

    def __init__(self, site: Site) -> None:
        """`site` gives the clinic's name, phone and language."""
        self.site = site
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(masked=masked, day=day, clock=clock, zone_name=calls.zone_name, tel=tel)

    def page(self, template: str, title: str, *, status: int = 200, **context: Any) -> Response:
        """The page `template` with this title; `context` is what it shows."""
        text = self._templates.get_template(template).render(
            title=title, site=self.site, clinic=self.site.clinic, style=STYLE_VERSION, **context
        )
        return HTMLResponse(text, status_code=status)

    def problem(self, status: int, title: str, text: str) -> Response:
        """A page that says, calmly, what did not work and what to do now."""
        return self.page("problem.html", title, status=status, text=text)

    def broken_link(self) -> Response:
        """A link that is not one of ours any more. It says the same whatever the reason."""
        return self.problem(
            404, "This link is not complete", "Open it from the email again. If it still does not work, call us."
        )

    def unavailable(self) -> Response:
        """A server of ours is away; nothing was changed."""
        response = self.problem(
            503, "Please try again in a minute", "Something on our side is not ready. Nothing was changed."
        )
        response.headers["retry-after"] = "60"
        return response


def day(moment: datetime | date, zone: ZoneInfo | None = None) -> str:
    """`Tuesday, November 3`, in `zone` when the moment is one."""
    local = moment.astimezone(zone) if isinstance(moment, datetime) else moment
    return f"{local:%A, %B} {local.day}"


def clock(moment: datetime, zone: ZoneInfo) -> str:
    """`2:30 PM`, with a space that no line breaks at."""
    local = moment.astimezone(zone)
    return f"{local.hour % 12 or 12}:{local:%M}\N{NO-BREAK SPACE}{'AM' if local.hour < 12 else 'PM'}"


def tel(phone: str) -> str:
    """The address of a `tel:` link: digits only, a ten-digit number as a North American one."""
    digits = "".join(letter for letter in phone if letter.isdigit())
    if phone.strip().startswith("+"):
        return f"tel:+{digits}"
    return f"tel:+1{digits}" if len(digits) == 10 else f"tel:{digits}"
