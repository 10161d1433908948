"""Programs that call the API: a key made as `dripwell keys add` makes it, and requests with it."""

from __future__ import annotations

from collections.abc import Sequence

from dripwell.bootstrap import Installation
from dripwell.services import keys
from dripwell.storage import clock

MAY = tuple(keys.SCOPES)


def key_for(
    installation: Installation, name: str = "test", *, scopes: Sequence[str] = MAY, per_minute: int = 1_000_000
) -> str:
    """A new key in force, allowed everything unless the test says otherwise."""
    secret = installation.new_api_key()
    with installation.database.transaction() as connection:
        keys.add(
            connection,
            name=name,
            scopes=scopes,
            secret=secret,
            times=clock.read(connection),
            actor="test",
            per_minute=per_minute,
        )
    return secret


def bearing(secret: str, **more: str) -> dict[str, str]:
    """The headers of a request with this key."""
    return {"authorization": f"Bearer {secret}", **{name.replace("_", "-"): value for name, value in more.items()}}
