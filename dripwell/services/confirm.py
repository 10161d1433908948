"""Double opt-in: the button on the confirmation page is what makes somebody a subscriber."""

from __future__ import annotations

from dataclasses import dataclass

from dripwell.core.campaign import Form, Site, Topic
from dripwell.services import happen
from dripwell.services.versions import Versions
from dripwell.storage import clicks, clock, consents, subscribers, suppressions
from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Request:
    """What a confirmation link asks. `done`: its button was pressed before."""

    enrollment_id: int
    subscriber_id: int
    address: str
    form: Form
    topic: Topic
    done: bool


def read(connection: Connection, *, enrollment_id: int, site: Site) -> Request | None:
    """The request this link names; None when its person is erased or its form is gone."""
    found = clicks.confirming(connection, enrollment_id)
    if found is None or found.address is None:
        return None
    form = next((form for form in site.forms if form.name == found.fields.get("form")), None)
    topic = site.topic(form.topic) if form is not None else None
    if form is None or topic is None:
        return None
    done = consents.has(connection, found.subscriber_id, _source(enrollment_id))
    return Request(enrollment_id, found.subscriber_id, found.address, form, topic, done)


def confirm(connection: Connection, *, enrollment_id: int, site: Site, versions: Versions) -> Request | None:
    """Press the button: active, consent in the words of the form, its series begins. A second press changes nothing.

    A fresh confirmed opt-in lifts an earlier unsubscribe, as SENDING section 9 allows; a dead address or a complaint
    stays as it is until an operator lifts it.
    """
    request = read(connection, enrollment_id=enrollment_id, site=site)
    if request is None or request.done:
        return request
    person = subscribers.lock(connection, request.subscriber_id)
    if person is None or person.addr_hash is None or consents.has(connection, person.id, _source(enrollment_id)):
        return request
    times = clock.read(connection)
    for scope in (suppressions.MARKETING, f"topic:{request.topic.name}"):
        if suppressions.since_last_lift(connection, person.addr_hash, scope):
            suppressions.append(
                connection,
                addr_hash=person.addr_hash,
                scope=scope,
                action="lift",
                reason="confirmed",
                source="confirm",
                evidence=f"enrollment {enrollment_id}",
            )
    if not suppressions.since_last_lift(connection, person.addr_hash, suppressions.ALL):
        suppressions.mark_subscriber(connection, person.id, "active")
    consents.add(
        connection,
        person.id,
        request.topic.name,
        give=True,
        source=_source(enrollment_id),
        wording=request.form.consent,
        at=times.now,
    )
    happen.trigger(connection, versions, person.id, "form", request.form.name, times)
    return request


def _source(enrollment_id: int) -> str:
    return f"confirm:{enrollment_id}"
