"""An email as a page: the same HTML its mailbox got, made again from the version it was mailed in."""

from __future__ import annotations

from dripwell.content.render import render_step
from dripwell.core.tokens import Keys
from dripwell.services import facts
from dripwell.services.versions import Versions
from dripwell.storage import clicks, clock
from dripwell.storage.database import Connection
from dripwell.storage.messages import Addressee


def html(connection: Connection, *, message_id: int, versions: Versions, keys: Keys) -> str | None:
    """The HTML of this message, or None: no such message, its person is erased, or it is about a booked call.

    Emails about a call carry a phone number; they are read in the mailbox only.
    """
    origin = clicks.origin(connection, message_id)
    if origin is None or origin.address is None or origin.addr_hash is None or origin.campaign_kind == "service":
        return None
    published = versions.published(connection, origin.version_id)
    if not published.has(origin.step_key):
        published = versions.wording(connection, origin.campaign_id, origin.step_key)
    addressee = Addressee(
        id=origin.message_id,
        public_id=origin.message_public_id,
        enrollment_id=origin.enrollment_id,
        subscriber_id=origin.subscriber_id,
        round=origin.round,
        address=origin.address,
        addr_hash=origin.addr_hash,
        fields=dict(origin.fields),
        timezone=origin.timezone,
        joined_at=origin.enrollment_joined_at,
    )
    person = facts.person(published, addressee, {}, facts.signers(keys, clock.read(connection).wall_now))
    return render_step(published.sources, published.site, published.campaign, origin.step_key, person).html
