"""Double opt-in: GET shows one button, POST makes it true. A link that is broken or old leads to a fresh one."""

from __future__ import annotations

import logging

from starlette.background import BackgroundTask
from starlette.responses import Response

from dripwell.core.address import address_hash
from dripwell.core.errors import InvalidTokenError, UnavailableError
from dripwell.core.network import truncated
from dripwell.core.tokens import Purpose
from dripwell.services import confirm, signup
from dripwell.services.confirm import Request, State
from dripwell.storage import clock
from dripwell.storage.database import Connection
from dripwell.web.pages import signup as form_page
from dripwell.web.visit import Visit

log = logging.getLogger("dripwell.web")

BROKEN = "This link is not complete", "The address of this page was cut off on its way, or it is not one of ours."
ASKED_FOR = "A fresh link", "For whoever has lost the email with the button."


def page(visit: Visit) -> Response:
    """A link works for seven days; pressing the button twice is pressing it once."""
    try:
        enrollment_id = visit.identity(Purpose.CONFIRM)
    except InvalidTokenError:
        return _address(visit, BROKEN, status=404)
    with visit.transaction() as (connection, times):
        try:
            visit.identity(Purpose.CONFIRM, times.wall_now)
            is_old = False
        except InvalidTokenError:
            is_old = True
        request = confirm.read(connection, enrollment_id=enrollment_id, site=visit.installation.site)
    if visit.acts and request is not None and request.state is State.OPEN and not is_old:
        request = _press(visit, enrollment_id)
    if request is None:
        return _address(visit, BROKEN, status=404)
    if request.state is State.DONE:
        return _what_holds(visit, request)
    if request.state is State.OVERTAKEN or is_old:
        return _again(visit, request)
    return visit.look.page(
        "confirm.html",
        "Confirm your address",
        here=visit.here,
        address=request.address,
        topics=request.topics,
        asked=request.asked,
    )


def _press(visit: Visit, enrollment_id: int) -> Request | None:
    installation = visit.installation

    def work(connection: Connection) -> confirm.Confirmed | None:
        return confirm.confirm(
            connection,
            enrollment_id=enrollment_id,
            site=installation.site,
            versions=installation.versions,
            page=_place(visit),
            network=truncated(visit.client),
        )

    confirmed = installation.database.retrying(work)
    if confirmed is not None and confirmed.lifted:
        installation.fast.remove(confirmed.lifted)
    return None if confirmed is None else confirmed.request


def _place(visit: Visit) -> str:
    # Where something was said, for the ledger, without the word of the link.
    return f"{visit.installation.site.base_url}/k"


def _what_holds(visit: Visit, request: Request) -> Response:
    """After the button: what of it is mailed now, which an unsubscribe may have changed since."""
    if request.holds:
        return visit.look.page("confirmed.html", "Your address is confirmed", topics=request.holds)
    form = request.signup.form if request.signup.form in [form.name for form in visit.installation.site.forms] else ""
    return visit.look.page("confirm_over.html", "Nothing of this is emailed now", topics=request.topics, form=form)


def fresh(visit: Visit) -> Response:
    """Enter an address, get a fresh link there: the same answer, as fast, whether we know the address or not."""
    if not visit.acts:
        return _address(visit, ASKED_FOR)
    if visit.too_large:
        return form_page.too_large(visit)
    try:
        address = signup.checked_address(visit.form.get("email", "").strip(" \t"))
    except ValueError as error:
        return _address(visit, ASKED_FOR, status=422, error=str(error))
    with visit.transaction() as (_, times):
        age = signup.age(visit.installation.keys, visit.field(form_page.SHOWN), times.wall_now)
    if visit.form.get(form_page.TRAP):
        return _address(visit, ASKED_FOR, note=form_page.TRAPPED)
    if age is None or age < signup.FASTEST:
        return _address(visit, ASKED_FOR, note=form_page.TOO_FAST, kept=age is not None)
    if not form_page.within_limit(visit):
        return form_page.too_often(visit)
    response = _mailed(visit)
    response.background = BackgroundTask(_mail, visit, address_hash(visit.installation.pepper, address))
    return response


def _mail(visit: Visit, addr_hash: bytes) -> None:
    # After the answer has gone out: how long this takes would tell whether we know the address.
    def work(connection: Connection) -> bool:
        return signup.mail_again(
            connection,
            addr_hash=addr_hash,
            times=clock.read(connection),
            page=_place(visit),
            network=truncated(visit.client),
        )

    try:
        if form_page.has_room(visit):
            visit.installation.database.retrying(work)
    except UnavailableError:
        log.error("a fresh confirmation link could not be mailed: PostgreSQL does not answer")


def _again(visit: Visit, request: Request) -> Response:
    """The link is too old: it has expired, or its person has unsubscribed since. A button asks for a fresh one."""
    if not visit.acts or visit.field("do") != "again":
        if request.state is State.OVERTAKEN:
            title = "This link is older than your unsubscribe"
            return visit.look.page("confirm_late.html", title, status=409, here=visit.here, topics=request.topics)
        return visit.look.page("confirm_old.html", "This link has expired", status=404, here=visit.here)
    if not form_page.within_limit(visit):
        return form_page.too_often(visit)

    def work(connection: Connection) -> bool:
        return signup.mail_this_again(
            connection,
            enrollment_id=request.enrollment_id,
            times=clock.read(connection),
            page=_place(visit),
            network=truncated(visit.client),
        )

    if form_page.has_room(visit):
        visit.installation.database.retrying(work)
    return _mailed(visit)


def _mailed(visit: Visit) -> Response:
    return visit.look.page(
        "confirm_mailed.html", "Check your email", most=signup.MOST_MAILS, subject=form_page.subject(visit)
    )


def _address(
    visit: Visit, why: tuple[str, str], *, status: int = 200, error: str = "", note: str = "", kept: bool = False
) -> Response:
    with visit.transaction() as (_, times):
        shown = signup.shown_at(visit.installation.keys, times.wall_now)
    title, lead = why
    return visit.look.page(
        "confirm_fresh.html",
        title,
        status=status,
        lead=lead,
        typed=visit.field("email", signup.LONGEST_ADDRESS),
        names={"shown": form_page.SHOWN, "trap": form_page.TRAP},
        shown=visit.field(form_page.SHOWN) if kept else shown,
        error=error,
        note=note,
    )
