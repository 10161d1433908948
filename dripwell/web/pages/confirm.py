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
    installation = visit.installation
    with visit.transaction() as (connection, times):
        try:
            visit.identity(Purpose.CONFIRM, times.wall_now)
            is_old = False
        except InvalidTokenError:
            is_old = True
        request = confirm.read(connection, enrollment_id=enrollment_id, site=installation.site)
    if request is None:
        return _address(visit, BROKEN, status=404)
    if is_old:
        return _old(visit, enrollment_id)
    if visit.acts:

        def work(connection: Connection) -> confirm.Confirmed | None:
            return confirm.confirm(
                connection,
                enrollment_id=enrollment_id,
                site=installation.site,
                versions=installation.versions,
                page=f"{installation.site.base_url}/k",
                network=truncated(visit.client),
            )

        confirmed = installation.database.retrying(work)
        if confirmed is not None and confirmed.lifted:
            installation.fast.remove(confirmed.lifted)
    if visit.acts or request.done:
        return visit.look.page("confirmed.html", "Your address is confirmed", topics=request.topics)
    return visit.look.page(
        "confirm.html",
        "Confirm your address",
        here=visit.here,
        address=request.address,
        topics=request.topics,
        asked=request.asked,
    )


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
    try:
        visit.installation.database.retrying(
            lambda connection: signup.mail_again(connection, addr_hash=addr_hash, times=clock.read(connection))
        )
    except UnavailableError:
        log.error("a fresh confirmation link could not be mailed: PostgreSQL does not answer")


def _old(visit: Visit, enrollment_id: int) -> Response:
    if not visit.acts or visit.field("do") != "again":
        return visit.look.page("confirm_old.html", "This link has expired", status=404, here=visit.here)
    if not form_page.within_limit(visit):
        return form_page.too_often(visit)
    visit.installation.database.retrying(
        lambda connection: signup.mail_this_again(connection, enrollment_id=enrollment_id, times=clock.read(connection))
    )
    return _mailed(visit)


def _mailed(visit: Visit) -> Response:
    return visit.look.page("confirm_mailed.html", "Check your email", most=signup.MOST_MAILS)


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
