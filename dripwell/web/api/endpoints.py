"""What other programs may ask and tell. Each endpoint runs in a thread, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path
from starlette.requests import Request
from starlette.responses import JSONResponse

from dripwell.bootstrap import Connection, Installation
from dripwell.core.address import check
from dripwell.services import enroll, report, tell
from dripwell.services.keys import Caller
from dripwell.storage import clicks, clock
from dripwell.web.api import vocabulary
from dripwell.web.api.problem import Problem
from dripwell.web.api.repeat import Done, once
from dripwell.web.api.route import Bounded, allow
from dripwell.web.api.shapes import (
    CAMPAIGN,
    REPEAT_KEY,
    EnrollmentAnswer,
    EnrollmentAsked,
    EventAnswer,
    EventAsked,
    FindAsked,
    ReportAnswer,
    SubscriberAnswer,
    SubscriberAsked,
    SubscriberFound,
)

RepeatKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=REPEAT_KEY,
        min_length=1,
        max_length=255,
        description="Your own word for this request. Sent again under it within 24 hours, it is answered as before and "
        "nothing happens again.",
    ),
]
CampaignName = Annotated[
    str, Path(pattern=CAMPAIGN, max_length=80, description="The campaign's folder.", examples=["seven-benefits"])
]


def router(installation: Installation, errors: Callable[..., dict[int | str, dict[str, Any]]]) -> APIRouter:
    """Every endpoint for this installation. `errors` gives the responses that one declares beside its success."""
    made = APIRouter(route_class=Bounded)
    _subscribers(made, installation, errors)
    _events(made, installation, errors)
    _campaigns(made, installation, errors)
    return made


Errors = Callable[..., dict[int | str, dict[str, Any]]]


def _subscribers(made: APIRouter, installation: Installation, errors: Errors) -> None:
    @made.post(
        "/subscribers",
        operation_id="add_subscriber",
        summary="Add a subscriber, or amend the one with this address",
        response_model=SubscriberAnswer,
        responses=errors("body", 409, 422),
        dependencies=[Depends(allow(installation, "subscribers:write"))],
    )
    def add_subscriber(request: Request, asked: SubscriberAsked, repeat_key: RepeatKey = None) -> JSONResponse:
        caller: Caller = request.state.caller
        if asked.consent is not None and asked.confirm is not None:
            raise _invalid(
                "consent and confirm are both given", "send how they agreed, or the form to ask", "consent", "confirm"
            )
        vocabulary.check_subscriber(installation.site, asked)
        consent = None
        if asked.consent is not None:
            given = asked.consent
            consent = enroll.Consent(given.topic, given.source, given.wording, _moment(given.given_at))
        person = tell.Person(
            address=_address(asked.address),
            timezone=asked.timezone,
            fields=asked.fields,
            tags=asked.tags,
            relationship=asked.relationship,
            consent=consent,
            form=asked.confirm,
        )

        def work(connection: Connection) -> Done:
            told = tell.subscriber(
                connection,
                person,
                versions=installation.versions,
                pepper=installation.pepper,
                new_id=installation.new_id,
                times=clock.read(connection),
                actor=caller.actor,
            )
            answer = SubscriberAnswer(
                id=told.public_id,
                added=told.added,
                state=told.state,
                consent=told.consent,
                confirming=told.confirming,
                joined=list(told.joined),
                suppressed=dict(told.suppressed),
            )
            return Done(answer, told.subscriber_id)

        return once(installation, caller, repeat_key, {"at": "subscribers", **asked.model_dump()}, work)

    @made.post(
        "/subscribers/find",
        operation_id="find_subscriber",
        summary="Look up one subscriber by address",
        response_model=SubscriberFound,
        responses=errors("body", 404, 422),
        dependencies=[Depends(allow(installation, "subscribers:read"))],
    )
    def find_subscriber(asked: FindAsked) -> SubscriberFound:
        address = _address(asked.address)
        with installation.database.transaction() as connection:
            clicks.read_only(connection)
            found = tell.find(connection, address, installation.pepper)
        person = found.person
        return SubscriberFound(
            id=person.public_id,
            state=person.state,
            relationship=person.relationship,
            timezone=person.timezone,
            fields=dict(person.fields),
            tags=list(person.tags),
            topics=list(found.topics),
            suppressed=dict(found.suppressed),
            joined_at=person.joined_at,
        )


def _events(made: APIRouter, installation: Installation, errors: Errors) -> None:
    @made.post(
        "/events",
        operation_id="tell_event",
        summary="Tell what happened to a subscriber",
        response_model=EventAnswer,
        responses=errors("body", 404, 409, 422),
        dependencies=[Depends(allow(installation, "events:write"))],
    )
    def tell_event(request: Request, asked: EventAsked, repeat_key: RepeatKey = None) -> JSONResponse:
        vocabulary.check_event(installation.site, asked)
        address = _address(asked.address)
        at = None if asked.occurred_at is None else _moment(asked.occurred_at)

        def work(connection: Connection) -> Done:
            person, news = tell.event(
                connection,
                address=address,
                name=asked.event,
                versions=installation.versions,
                pepper=installation.pepper,
                times=clock.read(connection),
                at=at,
                sender_id=asked.id,
            )
            return Done(EventAnswer(subscriber=person.public_id, event=asked.event, recorded=news), person.id)

        return once(installation, request.state.caller, repeat_key, {"at": "events", **asked.model_dump()}, work)


def _campaigns(made: APIRouter, installation: Installation, errors: Errors) -> None:
    @made.post(
        "/campaigns/{name}/enrollments",
        operation_id="enroll",
        summary="Let a subscriber into a running campaign",
        response_model=EnrollmentAnswer,
        responses=errors("body", 404, 409, 422),
        dependencies=[Depends(allow(installation, "enroll"))],
    )
    def enroll_one(
        request: Request, name: CampaignName, asked: EnrollmentAsked, repeat_key: RepeatKey = None
    ) -> JSONResponse:
        caller: Caller = request.state.caller
        address = _address(asked.address)

        def work(connection: Connection) -> Done:
            person = tell.locked(connection, address, installation.pepper)
            joining = enroll.enroll_each(connection, installation.versions, name, [person.id], actor=caller.actor)
            answer = EnrollmentAnswer(
                subscriber=person.public_id,
                campaign=name,
                joined=bool(joining.joined),
                why_not=joining.why_not.get(person.id),
            )
            return Done(answer, person.id)

        return once(installation, caller, repeat_key, {"at": f"enrollments of {name}", **asked.model_dump()}, work)

    @made.get(
        "/campaigns/{name}/report",
        operation_id="report",
        summary="A campaign's numbers, all of one moment",
        response_model=ReportAnswer,
        responses=errors("read", 404, 422),
        dependencies=[Depends(allow(installation, "report:read"))],
    )
    def read_report(name: CampaignName) -> ReportAnswer:
        with installation.database.snapshot() as connection:
            found = report.report(connection, name, installation.versions)
        return ReportAnswer(**asdict(found), adds_up=found.adds_up)


def _address(given: str) -> str:
    try:
        return check(given)
    except ValueError as error:
        raise _invalid("this is no address that mail can reach", "send another address", "address") from error


def _moment(given: str) -> datetime:
    return datetime.fromisoformat(given)


def _invalid(problem: str, next: str, *at: str) -> Problem:
    return Problem(422, "invalid", problem, next, at=at)
