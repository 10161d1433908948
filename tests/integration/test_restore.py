"""A database that came back from a backup calls nobody, learns what it forgot, and mails nobody a second time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from dripwell.core.address import address_hash
from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.delivery.provider import Mailing, Unknown
from dripwell.services import hold, leave, quarantine, resolve, restore, send
from dripwell.storage import clock, journal, spool, suppressions, witness
from dripwell.storage.database import Connection, Database
from dripwell.storage.journal import Call, Journal
from dripwell.storage.witness import Witnesses
from tests.integration import rows
from tests.integration.scripted import House, Lost

REASON = "restored last night's backup"


class Unanswered(Journal):
    """A journal whose host dies before it can write what became of a call."""

    def after(self, **_: object) -> None:
        """Too late."""


class Clinic(House):
    """A house with a journal, witnesses and yesterday's backup."""

    def __init__(self, database: Database, admin: Database, redis_url: str, state_dir: Path) -> None:
        super().__init__(database, redis_url)
        self.admin = admin
        self.state_dir = state_dir
        self.journal.close()
        self.folder = journal.folder_in(state_dir)
        self.journal = Journal(self.folder, host=self.owner.host)
        self.witnesses = Witnesses(state_dir, redis_url)
        self.backups: list[str] = []

    def close(self) -> None:
        super().close()
        self.witnesses.close()
        for name in self.backups:
            self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def mail(self, *, answers: bool = True) -> None:
        """Plan and send what is due; the journal hears of the calls, and of their answers if `answers`."""
        self.plan()
        whole = self.journal
        if not answers:
            self.journal = Unanswered(self.folder, host=self.owner.host)
        self.send()
        self.journal = whole

    def watch(self) -> bool:
        """What every pass begins with."""
        return quarantine.watch(self.database, self.witnesses, self.folder)

    def back_up(self) -> str:
        """A backup of the database as it stands."""
        name = self.database.engine.url.database
        backup = f"{name}_backup{len(self.backups)}"
        self.database.engine.dispose()
        self._admin(f"DROP DATABASE IF EXISTS {backup} WITH (FORCE)")
        self._admin(f"CREATE DATABASE {backup} TEMPLATE {name} STRATEGY file_copy")
        self.backups.append(backup)
        return backup

    def restore(self, backup: str) -> None:
        """Put the backup in the place of the database."""
        name = self.database.engine.url.database
        self.database.engine.dispose()
        self._admin(f"DROP DATABASE {name} WITH (FORCE)")
        self._admin(f"CREATE DATABASE {name} TEMPLATE {backup} STRATEGY file_copy")
        self._set_clock()  # a setting of the database, which a copy does not have

    def replay(self) -> restore.Replayed:
        """What an operator does first."""
        return restore.replay(self.database, [self.folder], spool.path_in(self.state_dir), actor="anna")

    def lift(self) -> None:
        """What an operator does last."""
        quarantine.lift(self.database, actor="anna", reason=REASON)

    def unsubscribe(self, message_id: int) -> None:
        """Press the button in this email."""
        leave.leave_for_good(self.database, self.journal, spool.path_in(self.state_dir), message_id, "page")

    def _admin(self, statement: str) -> None:
        with self.admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))


@pytest.fixture
def clinic(database: Database, template: Database, redis_url: str, tmp_path: Path) -> Iterator[Clinic]:
    made = Clinic(database, template, redis_url, tmp_path / "state")
    yield made
    made.close()


def test_a_database_that_goes_forward_is_left_alone(clinic: Clinic) -> None:
    campaign = clinic.publish()
    assert not clinic.watch()
    clinic.enroll(campaign, *clinic.people(3))
    clinic.mail()
    assert not clinic.watch()
    assert not clinic.watch()
    clinic.check()


def test_a_restored_database_mails_nobody_again_and_everybody_else_goes_on(clinic: Clinic) -> None:
    campaign = clinic.publish()
    early = clinic.people(2)
    waiting = [clinic.person("waits0@example.com"), clinic.person("waits1@example.com")]
    clinic.enroll(campaign, *early)
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()  # both get the first email after the backup
    clinic.enroll(campaign, *waiting)
    clinic.mail()  # and two who were enrolled after it
    assert sum(clinic.provider.got().values()) == 4
    ((leaver,),) = clinic.query("SELECT min(id) FROM message WHERE state = 'ACCEPTED'")
    clinic.unsubscribe(leaver)  # type: ignore[arg-type]
    clinic.watch()

    clinic.restore(backup)
    assert clinic.query("SELECT count(*) FROM batch") == [(0,)]
    assert clinic.watch()
    found = quarantine.show(clinic.database, [clinic.folder])
    assert found.reason is not None
    assert "remembered" in found.reason
    assert (found.lost.lost_calls, found.lost.emails) == (2, 4)

    replayed = clinic.replay()
    assert (replayed.lost_calls, replayed.emails, replayed.accepted, replayed.leaves) == (2, 4, 4, 1)
    assert replayed.strangers == 0
    clinic.lift()
    assert not clinic.watch()
    clinic.check()

    for _ in range(4):
        clinic.later(days=1)
        clinic.mail()
    got = clinic.messages()
    assert got["waits0@example.com", "2-second"] == ("ACCEPTED", None)
    assert [key for (_, key), (state, _) in got.items() if state == "ACCEPTED"].count("1-first") == 4
    assert [key for (_, key), (state, _) in got.items() if state == "ACCEPTED"].count("2-second") == 3
    assert not clinic.watch()
    clinic.check()


def test_a_call_without_an_answer_waits_for_evidence_after_the_replay(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(3))
    clinic.watch()
    backup = clinic.back_up()
    clinic.provider.answers = [Lost()]
    clinic.mail(answers=False)
    assert len(clinic.provider.taken) == 3
    clinic.restore(backup)
    assert clinic.watch()
    assert clinic.replay().accepted == 0
    assert clinic.batches() == [("UNKNOWN", None)]
    assert clinic.states() == ["IN_BATCH"] * 3
    clinic.lift()
    clinic.later(minutes=2)
    clinic.settle()
    assert clinic.states() == ["ACCEPTED"] * 3
    clinic.check()


def test_a_call_that_never_reached_the_provider_is_made_after_negative_proof(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.watch()
    backup = clinic.back_up()
    clinic.provider.answers = [Unknown("timeout")]
    clinic.mail(answers=False)
    clinic.restore(backup)
    assert clinic.watch()
    clinic.replay()
    clinic.lift()
    for _ in range(4):
        clinic.later(minutes=2)
        clinic.settle()
    clinic.mail()
    assert clinic.states() == ["ACCEPTED"] * 2
    clinic.check()


def test_a_batch_that_the_backup_has_from_before_its_call_was_called(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.watch()
    backups: list[str] = []

    def back_up(mailing: Mailing) -> None:
        with clinic.database.transaction() as connection:  # as the backup saw it: claimed, not yet marked
            connection.execute(text("UPDATE batch SET state = 'OPEN', called_at = NULL"))
        backups.append(clinic.back_up())
        with clinic.database.transaction() as connection:
            connection.execute(text("UPDATE batch SET state = 'CALLING', called_at = wall()"))

    clinic.provider.during = back_up
    clinic.mail()
    clinic.restore(backups[0])
    # Its number is known, so no witness speaks; an operator who knows better says it.
    assert not clinic.watch()
    assert quarantine.begin(clinic.database, actor="anna", reason="restored the 14:05 snapshot")
    assert not quarantine.begin(clinic.database, actor="anna", reason="again")
    clinic.later(minutes=5)
    clinic.settle()  # the janitor finds a lease that is over: a wrong guess
    assert clinic.replay().accepted == 2
    clinic.lift()
    clinic.mail()
    assert clinic.states() == ["ACCEPTED"] * 2
    clinic.check()


def test_an_unsubscribe_by_the_link_of_a_forgotten_email_holds(clinic: Clinic) -> None:
    campaign = clinic.publish()
    person = clinic.person("leaves@example.com")
    clinic.enroll(campaign, person)
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    ((message,),) = clinic.query("SELECT id FROM message")
    clinic.restore(backup)
    assert clinic.watch()
    clinic.unsubscribe(message)  # type: ignore[arg-type]  # in quarantine: nobody knows this email yet
    assert leave.replay(clinic.database, spool.path_in(clinic.state_dir)) == 0
    replayed = clinic.replay()
    assert replayed.spooled == 1
    assert clinic.query("SELECT id FROM message") == [(message,)], "the link in the email names it still"
    clinic.lift()
    clinic.later(days=3)
    clinic.mail()
    assert clinic.enrolled()[0][:2] == ("exited", "unsubscribed")
    clinic.check()


def test_an_undone_unsubscribe_stays_undone_after_a_restore(clinic: Clinic) -> None:
    person = clinic.person("mind@example.com")
    clinic.watch()
    campaign = clinic.publish()
    clinic.enroll(campaign, person)
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    ((message,),) = clinic.query("SELECT id FROM message")
    clinic.unsubscribe(message)  # type: ignore[arg-type]
    clinic.later(minutes=1)
    with clinic.database.transaction() as connection:
        times = clock.read(connection)
        assert leave.undo(connection, subscriber_id=person, wording="again", times=times)
    assert leave.keep(clinic.database, clinic.journal, clinic.state_dir) == 2
    assert leave.keep(clinic.database, clinic.journal, clinic.state_dir) == 0
    clinic.restore(backup)
    assert clinic.watch()
    assert clinic.replay().leaves == 2
    with clinic.database.transaction() as connection:
        assert (
            suppressions.standing(connection, [address_hash(rows.PEPPER, "mind@example.com")], ["marketing"]) == set()
        )
    assert clinic.query("SELECT state FROM subscriber WHERE id = :id", id=person) == [("active",)]


def test_who_joined_after_the_backup_is_gone_and_their_number_is_nobody_elses(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, clinic.person("before@example.com"))
    clinic.watch()
    backup = clinic.back_up()
    lost = clinic.person("after@example.com")
    clinic.enroll(campaign, lost)
    clinic.mail()
    ((highest,),) = clinic.query("SELECT max(id) FROM message")
    clinic.restore(backup)
    assert clinic.watch()
    stranger = clinic.person("stranger@example.com")
    assert stranger > lost
    replayed = clinic.replay()
    assert (replayed.strangers, replayed.accepted) == (1, 1)
    clinic.lift()
    clinic.enroll(campaign, stranger)
    clinic.mail()
    ((number,),) = clinic.query("SELECT id FROM message WHERE subscriber_id = :id", id=stranger)
    assert number > highest  # type: ignore[operator]
    assert clinic.messages()["stranger@example.com", "1-first"] == ("ACCEPTED", None)


def test_replaying_twice_changes_nothing(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(3))
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    ((message,),) = clinic.query("SELECT min(id) FROM message")
    clinic.unsubscribe(message)  # type: ignore[arg-type]
    clinic.restore(backup)
    assert clinic.watch()
    clinic.replay()
    before = (clinic.messages(), clinic.batches(), clinic.query("SELECT count(*) FROM suppression"))
    again = clinic.replay()
    assert (again.lost_calls, again.emails, again.accepted, again.leaves) == (0, 0, 0, 0)
    assert (clinic.messages(), clinic.batches(), clinic.query("SELECT count(*) FROM suppression")) == before
    clinic.check()


def test_a_series_that_went_on_after_the_backup_is_where_it_was(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    clinic.later(days=3)
    clinic.mail()
    before = clinic.query("SELECT id, public_id, state, batch_id, accepted_at FROM message ORDER BY id")
    assert len(before) == 4
    clinic.restore(backup)
    assert clinic.watch()
    clinic.replay()
    assert clinic.query("SELECT id, public_id, state, batch_id, accepted_at FROM message ORDER BY id") == before
    clinic.lift()
    clinic.later(days=3)
    clinic.mail()
    assert sum(clinic.provider.got().values()) == 4
    clinic.check()


def test_a_second_call_for_the_same_email_takes_it_from_the_first(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.watch()
    backup = clinic.back_up()
    clinic.provider.answers = [Unknown("timeout")]
    clinic.mail(answers=False)
    for _ in range(4):
        clinic.later(minutes=2)
        clinic.settle()
    clinic.mail(answers=False)
    assert len(clinic.provider.mailings) == 2
    clinic.restore(backup)
    assert clinic.watch()
    clinic.replay()
    assert clinic.query("SELECT cardinality(message_ids) FROM batch ORDER BY id") == [(0,), (1,)]
    clinic.lift()
    for _ in range(4):
        clinic.later(minutes=2)
        clinic.settle()
    assert clinic.states() == ["ACCEPTED"]
    clinic.check()


def test_a_quarantine_is_lifted_only_with_a_reason_and_after_the_replay(clinic: Clinic) -> None:
    with pytest.raises(RefusedError, match="no quarantine"):
        clinic.lift()
    with pytest.raises(RefusedError, match="not in quarantine"):
        clinic.replay()
    with clinic.database.transaction() as connection:
        witness.quarantine(connection, "because")
    with pytest.raises(RefusedError, match="dripwell quarantine replay"):
        clinic.lift()
    with pytest.raises(RefusedError, match="say why"):
        quarantine.lift(clinic.database, actor="anna", reason=" ")
    quarantine.lift(clinic.database, actor="anna", reason=REASON, without_replay=True)
    assert clinic.query("SELECT actor, action, detail ->> 'reason' FROM activity WHERE action LIKE '%lifted'") == [
        ("anna", "quarantine lifted", REASON)
    ]


def test_a_new_cluster_is_noticed_and_its_transaction_ids_become_its_own(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.mail()
    ((message,),) = clinic.query("SELECT min(id) FROM message")
    clinic.unsubscribe(message)  # type: ignore[arg-type]
    assert not clinic.watch()
    with clinic.database.transaction() as connection:  # as a dump brings it: numbers of a cluster far ahead
        witness.know_system(connection, "7000000000000000001")
        connection.execute(text("UPDATE batch SET checked_snapshot = '900000000:900000000:'"))
        connection.execute(text("ALTER TABLE suppression DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE suppression SET xid = '900000001'"))
        connection.execute(text("ALTER TABLE suppression ENABLE TRIGGER append_only"))
    assert clinic.watch()
    clinic.replay()
    clinic.lift()
    assert clinic.query("SELECT pg_visible_in_snapshot(xid, pg_current_snapshot()) FROM suppression") == [(True,)]
    assert clinic.query("SELECT count(*) FROM batch WHERE checked_snapshot IS NOT NULL") == [(0,)]
    assert not clinic.watch()


@pytest.mark.parametrize(
    "change", ["DELETE FROM suppression", "UPDATE suppression SET action = 'lift'", "UPDATE suppression SET xid = '5'"]
)
def test_the_ledger_stays_append_only(clinic: Clinic, change: str) -> None:
    with clinic.database.transaction() as connection:
        suppressions.append(
            connection, addr_hash=b"a" * 32, scope="all", action="suppress", reason="x", source="t", evidence=""
        )
        if not change.startswith("UPDATE suppression SET xid"):
            witness.quarantine(connection, "even then")
    with pytest.raises(Exception, match="append-only"), clinic.database.transaction() as connection:
        connection.execute(text(change))


def test_the_journal_alone_finds_out(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    backup = clinic.back_up()
    clinic.mail()
    clinic.restore(backup)
    assert quarantine.journal_behind(clinic.database, clinic.folder, clinic.owner.host) != []
    assert clinic.watch()


def test_every_call_of_this_host_has_its_line(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    assert quarantine.journal_behind(clinic.database, clinic.folder, clinic.owner.host) == []
    clinic.journal = Journal(clinic.state_dir / "elsewhere", host="host")
    clinic.enroll(campaign, clinic.person("unseen@example.com"))
    clinic.mail()
    (found,) = quarantine.journal_behind(clinic.database, clinic.folder, clinic.owner.host)
    assert "without a line" in found


def test_an_empty_database_may_take_the_place_of_another(clinic: Clinic) -> None:
    nonce = uuid4()
    clinic.journal.before(
        epoch=3,
        batch=41,
        nonce=nonce,
        provider="sandbox",
        lane="drip",
        campaign=UUID(int=1),
        campaign_name="pair",
        step_key="1-first",
        version_id=1,
        people=[],
        at=datetime(2026, 11, 2, tzinfo=UTC),
    )
    assert not clinic.watch()
    assert clinic.query("SELECT epoch, quarantined_at FROM installation") == [(4, None)]
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    assert clinic.query("SELECT min(id) > 41 FROM batch") == [(True,)]
    assert not clinic.watch()


def test_another_state_directory_is_noticed(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    assert not clinic.watch()
    with clinic.database.transaction() as connection:
        connection.execute(text("UPDATE installation SET identity = gen_random_uuid()"))
    assert clinic.watch()


def test_what_was_planned_is_held_when_a_journal_is_lost(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.plan()
    clinic.enroll(campaign, clinic.person("due@example.com"))  # due now, and not planned yet
    clinic.later(hours=9)  # it is night by now; a host that was up at noon has mailed them
    with clinic.database.transaction() as connection:
        witness.quarantine(connection, "a host is lost")
    assert hold.hold(clinic.database, clinic.versions, 30) == 3
    assert clinic.messages()["p0@example.com", "1-first"] == ("HELD", "restored")
    assert clinic.messages()["due@example.com", "1-first"] == ("HELD", "restored")
    clinic.replay()
    clinic.lift()
    clinic.later(days=1)
    clinic.mail()
    assert clinic.provider.mailings == []
    clinic.check()


def test_an_unsubscribe_that_cannot_be_journaled_is_not_called_done(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    ((message,),) = clinic.query("SELECT min(id) FROM message")
    in_the_way = clinic.state_dir / "not a folder"
    in_the_way.write_text("")
    broken = Journal(in_the_way / "journal", host="host")
    with pytest.raises(UnavailableError, match="would not outlive a restore"):
        leave.leave_for_good(clinic.database, broken, spool.path_in(clinic.state_dir), message, "page")  # type: ignore[arg-type]


def test_the_judge_sees_what_a_restore_without_its_journal_does(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    clinic.restore(backup)
    assert clinic.watch()
    quarantine.lift(clinic.database, actor="anna", reason=REASON, without_replay=True)
    clinic.mail()
    assert set(clinic.provider.got().values()) == {2}


def test_a_backup_from_before_the_first_enrollment_is_no_empty_database(clinic: Clinic) -> None:
    campaign = clinic.publish()
    people = clinic.people(3)
    clinic.watch()
    backup = clinic.back_up()
    clinic.enroll(campaign, *people)
    clinic.mail()
    ((leaver,),) = clinic.query("SELECT id FROM message WHERE subscriber_id = :id", id=people[0])
    clinic.unsubscribe(leaver)  # type: ignore[arg-type]
    clinic.watch()

    clinic.restore(backup)
    assert clinic.watch(), "nobody is enrolled, but three people know us"
    replayed = clinic.replay()
    assert (replayed.emails, replayed.accepted, replayed.leaves) == (3, 3, 1)
    clinic.lift()
    for _ in range(3):
        clinic.later(days=1)
        clinic.mail()
    assert clinic.provider.addresses().count("p0@example.com") == 1
    assert clinic.provider.addresses().count("p1@example.com") == 2
    clinic.check()


@pytest.mark.parametrize("witnessed", [True, False])
def test_a_backup_from_before_the_first_person_is_no_new_record(clinic: Clinic, witnessed: bool) -> None:
    clinic.watch()
    backup = clinic.back_up()
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    clinic.restore(backup)
    if not witnessed:  # then only the journal speaks, and this record was started before
        (clinic.state_dir / "witness.json").unlink()
        clinic.fast._redis.flushdb()
    assert clinic.watch(), "it has nobody, but it is the record that the witnesses speak of"


def test_who_left_stays_away_from_a_new_record(clinic: Clinic) -> None:
    row = journal.Left(
        address_hash(rows.PEPPER, "left@example.com"), "marketing", "suppress", "unsubscribed", "page", 77, rows.START
    )
    clinic.journal.left([row, row])
    clinic.journal.left([row])
    called = journal.Person(900, UUID(int=9), 800, 1)
    clinic.journal.before(
        epoch=3,
        batch=41,
        nonce=uuid4(),
        provider="sandbox",
        lane="drip",
        campaign=UUID(int=1),
        campaign_name="pair",
        step_key="1-first",
        version_id=1,
        people=[called],
        at=rows.START,
    )
    assert not clinic.watch()
    assert not clinic.watch()
    assert clinic.query("SELECT action, reason, source, at FROM suppression") == [
        ("suppress", "unsubscribed", "page", rows.START)
    ]
    assert clinic.query("SELECT min(seq) > 77 FROM suppression") == [(True,)]
    campaign = clinic.publish()
    clinic.enroll(campaign, clinic.person("left@example.com"), clinic.person("new@example.com"))
    clinic.mail()
    assert clinic.provider.addresses() == ["new@example.com"]
    assert clinic.query("SELECT min(id) > 900, min(subscriber_id) > 800 FROM message") == [(True, True)]
    clinic.check()


def test_a_process_that_has_not_looked_calls_nobody_for_a_record_that_went_back(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.plan()
    clinic.watch()
    backup = clinic.back_up()
    clinic.mail()
    clinic.restore(backup)
    clinic.journal = Journal(clinic.folder, host=clinic.owner.host)  # another process of this host
    found_out = partial(quarantine.found_out, clinic.database, clinic.witnesses, clinic.folder)
    send.send(clinic.sender(doubt=found_out), Lane.DRIP, out_of_time=lambda: False)
    clinic.later(minutes=5)
    clinic.mail()
    assert set(clinic.provider.got().values()) == {1}
    assert quarantine.is_on(clinic.database), "although the record knows a batch of that number by now"
    assert clinic.replay().accepted == 2
    clinic.lift()
    clinic.mail()
    clinic.check()


def test_the_journal_is_kept_while_the_record_or_its_clock_is_in_doubt(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(1))
    clinic.mail()
    (path,) = clinic.folder.iterdir()
    os.utime(path, (0, 0))
    clinic.later(days=365)
    host_now = clinic.wall
    with clinic.database.transaction() as connection:
        clock.raise_alarm(connection, "a year ahead")
    assert quarantine.forget_old(clinic.database, clinic.folder, host_now) == []
    with clinic.database.transaction() as connection:
        clock.accept(connection, timedelta(days=365))
        witness.quarantine(connection, "because")
    assert quarantine.forget_old(clinic.database, clinic.folder, host_now) == []
    quarantine.lift(clinic.database, actor="anna", reason=REASON, without_replay=True)
    assert quarantine.forget_old(clinic.database, clinic.folder, host_now) == [path]


def test_whoever_the_final_check_left_out_is_not_accepted_by_the_replay(clinic: Clinic) -> None:
    campaign = clinic.publish()
    stays, leaves = clinic.person("stays@example.com"), clinic.person("leaves@example.com")
    clinic.enroll(campaign, stays, leaves)
    clinic.plan()
    clinic.watch()
    backup = clinic.back_up()

    def complain(name: str) -> None:
        if name == "after_journal":
            with clinic.database.transaction() as connection:
                leave.suppress(
                    connection,
                    subscriber_id=leaves,
                    scope="campaign:pair",
                    reason="unsubscribed",
                    source="page",
                    evidence="x",
                    times=clock.read(connection),
                )

    whole, clinic.journal = clinic.journal, Unanswered(clinic.folder, host=clinic.owner.host)
    send.send(clinic.sender(complain), Lane.DRIP, out_of_time=lambda: False)
    assert clinic.provider.addresses() == ["stays@example.com"]
    (call,) = journal.read_calls(clinic.folder)
    assert isinstance(call, Call)
    left_out = [person.public_id for person in call.people if person.subscriber_id == leaves]
    assert len(left_out) == 1
    whole.after(epoch=call.epoch, batch=call.batch, nonce=call.nonce, outcome="accepted", at=call.at, left_out=left_out)
    clinic.restore(backup)
    assert clinic.watch()
    assert clinic.replay().accepted == 1
    assert clinic.messages() == {
        ("stays@example.com", "1-first"): ("ACCEPTED", None),
        ("leaves@example.com", "1-first"): ("PLANNED", None),
    }
    assert clinic.replay().accepted == 0
    clinic.lift()
    clinic.check()


def test_the_providers_own_answer_overrules_what_was_concluded_in_quarantine(clinic: Clinic) -> None:
    campaign = clinic.publish()
    clinic.enroll(campaign, *clinic.people(2))
    clinic.watch()
    backups: list[str] = []
    clinic.provider.during = lambda mailing: backups.append(clinic.back_up())
    clinic.mail()
    clinic.restore(backups[0])
    assert quarantine.begin(clinic.database, actor="anna", reason="restored the 14:05 snapshot")
    ((batch, state),) = clinic.query("SELECT id, state FROM batch")
    assert state == "CALLING"
    resolve.unknown(clinic.database, batch, "overdue", None)  # type: ignore[arg-type]
    resolve.absent(clinic.database, batch)  # type: ignore[arg-type]  # the provider's log lagged
    assert clinic.states() == ["PLANNED"] * 2
    assert clinic.replay().accepted == 2
    assert clinic.batches() == [("DONE", "accepted")]
    assert clinic.replay().accepted == 0
    clinic.lift()
    clinic.mail()
    assert clinic.states() == ["ACCEPTED"] * 2
    clinic.check()


def test_a_long_transaction_elsewhere_does_not_make_leaves_be_journaled_again(clinic: Clinic) -> None:
    everybody = clinic.people(4)

    def unsubscribe(connection: Connection, person: int) -> None:
        times = clock.read(connection)
        leave.suppress(
            connection,
            subscriber_id=person,
            scope="marketing",
            reason="unsubscribed",
            source="operator",
            evidence="x",
            times=times,
        )

    def keep() -> int:
        return leave.keep(clinic.database, clinic.journal, clinic.state_dir)

    keep()
    with clinic.database.transaction() as long:
        unsubscribe(long, everybody[0])
        for person in everybody[1:3]:
            with clinic.database.transaction() as connection:
                unsubscribe(connection, person)
        assert keep() == 2
        assert keep() == 0
        with clinic.database.transaction() as connection:
            unsubscribe(connection, everybody[3])
        assert keep() == 1
        assert keep() == 0
    assert keep() == 1, "what becomes visible late has the smallest number of all"
    assert keep() == 0
    assert sorted(left.seq for left in journal.read_leaves(clinic.folder)) == [
        seq for (seq,) in clinic.query("SELECT seq FROM suppression ORDER BY seq")
    ]


@pytest.mark.parametrize("content", ["7 900", "1", "", "1 2 {[1,2)", "1 2 {};DROP", "1 2 {} 3"])
def test_a_place_that_is_damaged_or_older_than_this_program_costs_only_repetition(clinic: Clinic, content: str) -> None:
    person = clinic.person()
    with clinic.database.transaction() as connection:
        leave.suppress(
            connection,
            subscriber_id=person,
            scope="all",
            reason="complained",
            source="provider",
            evidence="x",
            times=clock.read(connection),
        )
    clinic.state_dir.mkdir(exist_ok=True)
    (clinic.state_dir / "leaves.place").write_text(content)
    assert leave.keep(clinic.database, clinic.journal, clinic.state_dir) == 1
