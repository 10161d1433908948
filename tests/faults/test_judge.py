"""The judge sees what was planted, and says nothing where nothing is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.faults.judge import Leaving, Mail, Message, Record, Verdict, address_hash, judge, read_leavings, read_ledger

STEPS = ("1-part", "2-part")
MARIA, JOE = "maria@example.com", "joe@example.com"


def mail(address: str, step: int, batch: int, t: float) -> Mail:
    return Mail(t, str(batch), f"{address}/{step}", address_hash(address))


def message(address: str, step: int, state: str = "ACCEPTED", reason: str | None = None) -> Message:
    return Message(address, "pair", STEPS[step - 1], state, reason)


MAILS = [mail(MARIA, 1, 1, 10.0), mail(JOE, 1, 1, 10.0), mail(MARIA, 2, 2, 20.0), mail(JOE, 2, 2, 20.0)]
RECORD = Record(
    messages={f"{address}/{step}": message(address, step) for address in (MARIA, JOE) for step in (1, 2)},
    called={"1": 9.9, "2": 19.9},
    unsettled=0,
)


def verdict(
    mails: list[Mail] = MAILS, record: Record = RECORD, leavings: tuple[Leaving, ...] = (), may_hold: bool = False
) -> Verdict:
    return judge(mails, record, leavings, campaign="pair", steps=STEPS, people=(MARIA, JOE), may_hold=may_hold)


def changed(name: str, **values: object) -> Record:
    rows = dict(RECORD.messages)
    rows[name] = replace(rows[name], **values)  # type: ignore[arg-type]
    return replace(RECORD, messages=rows)


def test_a_course_in_which_all_went_well_is_clean() -> None:
    found = verdict()
    assert found.clean, found.wrong
    assert (found.messages, found.accepted, found.duplicates, found.lost, found.late) == (4, 4, 0, 0, 0)


def test_a_planted_duplicate_is_counted_even_in_another_batch() -> None:
    found = verdict([*MAILS, mail(MARIA, 1, 3, 30.0)])
    assert found.duplicates == 1
    assert not found.clean


def test_a_planted_loss_is_counted_whatever_the_record_says() -> None:
    found = verdict(MAILS[:3])
    assert found.lost == 1
    assert "somebody never got 2-part: ACCEPTED (None)" in found.wrong
    assert any("never accepted it" in sentence for sentence in found.wrong)


def test_a_message_that_was_never_planned_is_lost() -> None:
    rows = {name: row for name, row in RECORD.messages.items() if name != f"{JOE}/2"}
    found = verdict(MAILS[:3], replace(RECORD, messages=rows))
    assert (found.lost, found.wrong) == (1, ["somebody never got 2-part: never planned"])


def test_a_mail_in_a_call_marked_after_the_answered_unsubscribe_is_late() -> None:
    gone = Leaving(MARIA, answered=15.0)
    assert verdict(leavings=(gone,)).late == 1
    assert verdict(leavings=(replace(gone, answered=19.95),)).late == 0, "the call was under way"
    assert verdict(leavings=(replace(gone, answered=None),)).late == 0, "nobody told them anything"


def test_a_mail_long_after_the_unsubscribe_is_late_even_if_the_record_says_it_was_called_before() -> None:
    record = replace(RECORD, called={"1": 9.9, "2": 9.9})
    late = [*MAILS[:2], replace(MAILS[2], t=60.0), MAILS[3]]
    assert verdict(late, record, (Leaving(MARIA, answered=15.0),)).late == 1


def test_whoever_left_may_lack_the_rest() -> None:
    found = verdict(MAILS[:2] + MAILS[3:], changed(f"{MARIA}/2", state="SUPPRESSED"), (Leaving(MARIA, 15.0),))
    assert found.clean, found.wrong


def test_an_accepted_mail_that_the_record_does_not_call_accepted_is_a_difference() -> None:
    found = verdict(record=changed(f"{JOE}/2", state="HELD"))
    assert found.wrong == [f"message {JOE}/2 was accepted, and is HELD in the record"]


def test_a_mail_that_is_no_message_of_ours_is_found() -> None:
    found = verdict([*MAILS, Mail(5.0, "1", "stranger", address_hash("x@example.com"))])
    assert found.wrong == ["the sandbox accepted stranger, which is no message of ours"]


def test_steps_out_of_order_are_found() -> None:
    swapped = [replace(MAILS[0], t=30.0), *MAILS[1:]]
    assert any("out of order" in sentence for sentence in verdict(swapped).wrong)


def test_what_is_not_settled_or_broken_is_found() -> None:
    record = replace(RECORD, unsettled=2, broken={"V2 nothing stuck": [(1,)]})
    assert len(verdict(record=record).wrong) == 2
    assert verdict(record=record).unsettled == 2


def test_poison_and_held_messages_are_counted_apart() -> None:
    poisoned = verdict(MAILS[:3], changed(f"{JOE}/2", state="REJECTED", reason="poison"))
    assert (poisoned.poison, poisoned.lost, poisoned.clean) == (1, 0, True)
    held = changed(f"{JOE}/2", state="HELD", reason="no_evidence")
    assert verdict(MAILS[:3], held, may_hold=True).held == 1
    assert verdict(MAILS[:3], held).lost == 1


def test_only_whole_calls_of_the_ledger_count(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    line = {"t": 1.0, "call": 1, "of": 1, "dw_b": "1", "dw_m": "a", "address": "x"}
    half = {**line, "call": 2, "of": 2, "dw_m": "b"}
    path.write_text(f'{json.dumps(line)}\n{json.dumps(half)}\n{{"t":', encoding="utf-8")
    assert [each.message for each in read_ledger(path)] == ["a"]


def test_the_first_answer_to_an_unsubscribe_counts(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    assert read_leavings(path) == []
    notes = [(MARIA, None), (JOE, None), (MARIA, 5.0), (MARIA, 9.0)]
    path.write_text("".join(json.dumps({"address": who, "answered": at}) + "\n" for who, at in notes))
    assert read_leavings(path) == [Leaving(MARIA, 5.0), Leaving(JOE, None)]
