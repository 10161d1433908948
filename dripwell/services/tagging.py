"""Tags that steps of a series give and take: written, and what they start begins, with the decision."""

from __future__ import annotations

from collections.abc import Sequence

from dripwell.core.passage import Passed
from dripwell.services import happen
from dripwell.services.versions import Versions
from dripwell.storage import tags
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection


def tag(
    connection: Connection, versions: Versions, passing: Sequence[tuple[int, Sequence[Passed]]], times: Times
) -> None:
    """Write the tags of the steps that each (subscriber id, steps) passed, and enroll whom they start a series for.

    In the caller's transaction: of the steps and their tags there are both or none. Of a tag that is given and taken on
    one way the last word stays, but it was given, so it starts what it starts.
    """
    rows: dict[int, dict[str, bool]] = {}
    given: dict[str, set[int]] = {}
    for who, passed in passing:
        for one in passed:
            if one.tag:
                rows.setdefault(who, {})[one.tag] = True
                given.setdefault(one.tag, set()).add(who)
            elif one.untag:
                rows.setdefault(who, {})[one.untag] = False
    tags.change(
        connection,
        [
            (who, [name for name, add in theirs.items() if add], [name for name, add in theirs.items() if not add])
            for who, theirs in sorted(rows.items())
        ],
    )
    for name, people in sorted(given.items()):
        happen.trigger_many(connection, versions, sorted(people), "tag", name, times)
