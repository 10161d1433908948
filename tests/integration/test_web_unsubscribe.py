"""The unsubscribe page and the one-click POST (RFC 8058): whatever arrives, it holds at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose
from dripwell.services import leave
from dripwell.storage import clock, spool
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.conftest import Mailed

UNDO = 'value="undo">Undo</button>'
BODIES = {
    "urlencoded": {"data": {"List-Unsubscribe": "One-Click"}},
    "multipart": {"files": {"List-Unsubscribe": (None, "One-Click")}},
    "empty": {"content": b""},
    "broken multipart": {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    "multipart without a boundary": {"content": b"abc", "headers": {"content-type": "multipart/form-data"}},
    "too large": {"content": b"a" * 200_000, "headers": {"content-type": "application/x-www-form-urlencoded"}},
    "not text": {"content": b"\xff\xfe\x00", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    "unknown type": {"content": b"{}", "headers": {"content-type": "application/json"}},
}


def _suppressed(mailed: Mailed) -> bool:
    with mailed.installation.database.transaction() as connection:
        return connection.execute(text("SELECT count(*) FROM suppression WHERE action = 'suppress'")).scalar() == 1


@pytest.mark.parametrize("body", BODIES, ids=lambda name: name.replace(" ", "_"))
def test_any_post_unsubscribes_at_once_without_cookie_or_redirect(
    client: TestClient, mailed: Mailed, body: str
) -> None:
    answer = client.post(f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}", **BODIES[body])
    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.text
    assert "set-cookie" not in answer.headers
    assert _suppressed(mailed)
    with mailed.installation.database.transaction() as connection:
        state = connection.execute(text("SELECT state, ended_reason FROM enrollment")).one()
    assert tuple(state) == ("exited", "unsubscribed")


def test_the_page_shows_one_button_and_a_masked_address(client: TestClient, mailed: Mailed) -> None:
    page = client.get(f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}")
    assert page.status_code == 200
    assert page.text.count("<button") == 1
    assert "m•••a@example.com" in page.text
    assert "maria@example.com" not in page.text
    assert "<title>Unsubscribe - KCLA</title>" in page.text
    assert not _suppressed(mailed)


def test_repeats_and_forged_links_get_the_same_answer(client: TestClient, mailed: Mailed) -> None:
    word = mailed.link(Purpose.UNSUBSCRIBE)
    forged = word[:-4] + ("AAAA" if not word.endswith("AAAA") else "BBBB")
    first, again, unknown, wrong_door = (
        client.post(f"/u/{path}") for path in (word, word, forged, mailed.link(Purpose.VIEW))
    )
    assert {r.status_code for r in (first, again, unknown, wrong_door)} == {200}
    shapes = {r.text.replace(r.request.url.path, "") for r in (first, again, unknown, wrong_door)}
    assert len(shapes) == 1
    assert _suppressed(mailed)


def test_a_link_to_nobody_gets_the_same_answer(client: TestClient, mailed: Mailed) -> None:
    for identity in (999_999, 2**63, 2**64 - 1):
        assert client.post(f"/u/{mailed.link(Purpose.UNSUBSCRIBE, identity)}").status_code == 200
    assert not _suppressed(mailed)


def test_it_reaches_the_fast_set_and_the_planned_message(client: TestClient, mailed: Mailed) -> None:
    fast = mailed.installation.fast
    with mailed.installation.database.transaction() as connection:
        fast.rebuild(connection)
        rows.message(connection, mailed.enrollment, step_key="2-psychological-healing", state="PLANNED")
        connection.execute(text("UPDATE enrollment SET state = 'mailing'"))
        addr_hash = bytes(connection.execute(text("SELECT addr_hash FROM subscriber")).scalar_one())
    client.post(f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}")
    assert fast.hits([addr_hash], ["marketing"]) == {addr_hash}
    with mailed.installation.database.transaction() as connection:
        states = connection.execute(text("SELECT state FROM message ORDER BY id")).scalars().all()
    assert states == ["ACCEPTED", "SUPPRESSED"]


def test_undo_works_once_with_the_same_link_and_says_what_it_does_not_do(client: TestClient, mailed: Mailed) -> None:
    path = f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}"
    assert UNDO in client.post(path).text
    undone = client.post(path, data={"do": "undo"})
    assert "You get our emails again" in undone.text
    assert "does not start again" in undone.text
    assert "cannot be undone" in client.post(path, data={"do": "undo"}).text
    with mailed.installation.database.transaction() as connection:
        assert connection.execute(text("SELECT state FROM subscriber WHERE id = 1")).scalar() == "active"
    assert "You are unsubscribed" in client.post(path).text


def test_undo_is_not_offered_to_somebody_who_complained(client: TestClient, mailed: Mailed) -> None:
    with mailed.installation.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=mailed.subscriber,
            scope="all",
            reason="complained",
            source="sendgrid",
            evidence="",
            times=clock.read(connection),
        )
    assert UNDO not in client.post(f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}").text


def test_a_reason_is_kept_once_and_only_if_it_is_one_of_ours(client: TestClient, mailed: Mailed) -> None:
    path = f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}"
    for why in ("<script>", "upsetting", "often"):
        assert client.post(path, data={"do": "why", "why": why}).status_code == 200
    with mailed.installation.database.transaction() as connection:
        kept = connection.execute(text("SELECT detail ->> 'why' FROM activity WHERE action = 'unsubscribe.reason'"))
        assert kept.scalars().all() == ["upsetting"]


def test_while_postgresql_is_away_it_goes_to_the_spool_and_is_replayed(
    clientele: Callable[..., TestClient], mailed: Mailed
) -> None:
    installation = mailed.installation
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    client = clientele(database=away)
    path = f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}"
    assert "Unsubscribe?" in client.get(path).text
    answer = client.post(path)
    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.text
    assert UNDO not in answer.text
    away.close()
    assert not _suppressed(mailed)
    where = spool.path_in(installation.settings.state_dir)
    assert leave.replay(installation.database, where) == 1
    assert _suppressed(mailed)
    assert leave.replay(installation.database, where) == 0


def test_when_neither_can_keep_it_the_answer_is_no_lie(
    clientele: Callable[..., TestClient], mailed: Mailed, installation: Installation
) -> None:
    state = installation.settings.state_dir
    blocked = state.parent / "a file where a folder should be"
    blocked.write_text("")
    away = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    client = clientele(database=away, settings=installation.settings.model_copy(update={"state_dir": blocked}))
    answer = client.post(f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}")
    away.close()
    assert answer.status_code == 503
    assert "You are unsubscribed" not in answer.text


def test_a_spool_line_that_a_crash_cut_off_costs_no_other(installation: Installation, mailed: Mailed) -> None:
    where = spool.path_in(installation.settings.state_dir)
    spool.append(where, mailed.message)
    with where.open("ab") as handle:
        handle.write(b"12")
    spool.append(where, 7)
    with spool.draining(where) as ids:
        assert ids == [mailed.message, 12, 7]
    with spool.draining(where) as ids:
        assert ids == []


def test_a_spool_is_not_emptied_by_a_replay_that_fails(installation: Installation, mailed: Mailed) -> None:
    where = spool.path_in(installation.settings.state_dir)
    spool.append(where, mailed.message)
    with pytest.raises(RuntimeError), spool.draining(where):
        raise RuntimeError
    with spool.draining(where) as ids:
        assert ids == [mailed.message]


def test_a_link_from_before_an_erasure_says_that_it_names_nobody(client: TestClient, mailed: Mailed) -> None:
    path = f"/u/{mailed.link(Purpose.UNSUBSCRIBE)}"
    with mailed.installation.database.transaction() as connection:
        connection.execute(text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL"))
    for answer in (client.get(path), client.post(path)):
        assert "This link names nobody any more" in answer.text
        assert "You are unsubscribed" not in answer.text
    one_click = client.post(path, data={"List-Unsubscribe": "One-Click"})
    assert (one_click.status_code, one_click.text) == (200, "You are unsubscribed.\n")
