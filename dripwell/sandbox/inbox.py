"""The inbox: what the invented people received, to look at. Plain pages without scripts."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from dripwell.sandbox.config import Config
from dripwell.sandbox.events import NAMES
from dripwell.sandbox.ledger import Ledger, Mail
from dripwell.sandbox.logs import so_far, stamp, status

PAGE_SIZE = 25
TABS = ("html", "text", "headers", "events")
WIDTHS = ("desktop", "phone")

_HEAD = re.compile(r"<head(?:\s[^>]*)?>", re.IGNORECASE)
_TEMPLATES = Path(__file__).with_name("templates")
_LOCAL_IMAGES = "http://127.0.0.1:* http://localhost:*"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# A mail runs nothing and reaches nothing but pictures on this machine; its links may open a tab of their own.
_MAIL_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": (
        f"sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src 'self' {_LOCAL_IMAGES}; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
}


def routes(config: Config, ledger: Ledger) -> list[Route]:
    """The inbox's pages."""
    pages = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (_TEMPLATES / "inbox.css").read_bytes()

    def page(template: str, status_code: int = 200, **context: Any) -> HTMLResponse:
        return HTMLResponse(pages.get_template(template).render(context), status_code, _HEADERS)

    def list_page(request: Request) -> Response:
        search = request.query_params.get("q", "").strip()[:254]
        number = _number(request.query_params.get("page", "1"))
        ids = ledger.ids_matching(search) if search else range(1, ledger.accepted + 1)
        last = max(1, -(-len(ids) // PAGE_SIZE))
        number = min(number, last)
        end = len(ids) - (number - 1) * PAGE_SIZE
        shown = [_row(ledger, config, mail_id) for mail_id in reversed(ids[max(0, end - PAGE_SIZE) : end])]
        totals = {"found": len(ids), "accepted": ledger.accepted, "calls": ledger.calls}
        return page(
            "list.html",
            mails=shown,
            search=search,
            totals=totals,
            number=number,
            last=last,
            newer=_list_url(search, number - 1) if number > 1 else None,
            older=_list_url(search, number + 1) if number < last else None,
        )

    def mail_page(request: Request, mail: Mail) -> Response:
        show = request.query_params.get("show", "html")
        width = request.query_params.get("width", "desktop")
        show = show if show in TABS else "html"
        return page(
            "mail.html",
            mail=mail,
            row=_row(ledger, config, mail.id),
            show=show,
            width=width if width in WIDTHS else "desktop",
            tabs=TABS,
            widths=WIDTHS,
            headers=_all_headers(mail),
            events=[
                (_time(mail.call.at + each.after), NAMES.get(each.kind, each.kind))
                for each in so_far(mail.call, mail.index, config.now(), config.late)
            ],
            newer=mail.id + 1 if mail.id < ledger.accepted else None,
            older=mail.id - 1 if mail.id > 1 else None,
        )

    def mail_html(request: Request, mail: Mail) -> Response:
        markup = mail.html if mail.html is not None else ""
        if request.query_params.get("framed") == "1":
            # Links must leave the frame: the pages they lead to refuse to be framed.
            head = _HEAD.search(markup)
            place = head.end() if head else len(markup)
            markup = f'{markup[:place]}<base target="_blank">{markup[place:]}'
        return HTMLResponse(markup, headers=_MAIL_HEADERS)

    def mail_text(request: Request, mail: Mail) -> Response:
        return PlainTextResponse(mail.text or "", headers=_HEADERS)

    def one(show: Callable[[Request, Mail], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            mail = await run_in_threadpool(ledger.mail, request.path_params["id"])
            if mail is None:
                return page("missing.html", 404)
            return await run_in_threadpool(show, request, mail)

        return endpoint

    async def listed(request: Request) -> Response:
        return await run_in_threadpool(list_page, request)

    async def styles(request: Request) -> Response:
        return Response(css, media_type="text/css", headers={"Cache-Control": "max-age=60"})

    return [
        Route("/", listed),
        Route("/inbox.css", styles),
        Route("/mail/{id:int}", one(mail_page)),
        Route("/mail/{id:int}/html", one(mail_html)),
        Route("/mail/{id:int}/text", one(mail_text)),
    ]


def _row(ledger: Ledger, config: Config, mail_id: int) -> Mapping[str, Any]:
    place = ledger.find(mail_id)
    if place is None:
        raise LookupError(f"There is no mail {mail_id}.")
    call, index = place
    kinds = [NAMES.get(each.kind, each.kind) for each in so_far(call, index, config.now(), config.late)]
    return {
        "id": mail_id,
        "subject": call.subjects[index],
        "address": call.addresses[index],
        "time": _time(call.at),
        "stamp": stamp(call.at),
        "status": "complained" if "spamreport" in kinds else status(call, index, config.now(), config.late),
    }


def _all_headers(mail: Mail) -> list[tuple[str, str]]:
    shown = [("From", mail.sender), ("To", mail.address), ("Reply-To", mail.reply_to), ("Subject", mail.subject)]
    args = [(f"custom arg {name}", value) for name, value in mail.args.items()]
    provider = [("X-Message-Id", mail.call.provider_id), ("sg_message_id", mail.message_id)]
    categories = [("categories", ", ".join(mail.categories))] if mail.categories else []
    return [each for each in shown if each[1]] + list(mail.headers.items()) + args + categories + provider


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%b %-d, %H:%M:%S UTC")


def _number(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() and len(text) < 10 else 1


def _list_url(search: str, page: int) -> str:
    query = {**({"q": search} if search else {}), **({"page": str(page)} if page > 1 else {})}
    return "/?" + urlencode(query) if query else "/"
