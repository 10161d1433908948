"""The sandbox in a bad mood: what goes wrong by chance follows from the seed and breaks none of the promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dripwell.sandbox import hostile
from dripwell.sandbox.behavior import PLAIN
from dripwell.sandbox.hostile import ANSWERS, Chance, Mood

KEY = {"Authorization": "Bearer SG.test"}


class Provider:
    """A sandbox process, asked over HTTP."""

    def __init__(self, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--state", str(state), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.:]+", self.process.stdout.readline())
        assert found
        self.http = httpx2.Client(base_url=found[0], trust_env=False, timeout=10)

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def send(self, *ids: str) -> str:
        """One call to these people, a fresh connection each; what became of it, in a word."""
        people = [{"to": [{"email": f"{each}@example.com"}], "custom_args": {"dw_m": each}} for each in ids]
        try:
            response = self.http.post("/v3/mail/send", json=_mail(people), headers={**KEY, "Connection": "close"})
        except httpx2.TransportError as error:
            return type(error).__name__
        kind = response.headers.get("content-type", "")
        return f"{response.status_code}{' page' if 'html' in kind else ''}"

    def control(self, name: str, **wishes: Any) -> dict[str, Any]:
        """POST with wishes, GET without."""
        url = f"/control/{name}"
        response = self.http.post(url, json=wishes) if wishes else self.http.get(url)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]


def _mail(people: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "personalizations": people,
        "from": {"email": "hello@mail.kcla.example"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hello."}, {"type": "text/html", "value": "<p>Hello.</p>"}],
    }


@pytest.fixture
def provider(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Provider]:
    made = Provider(tmp_path / "sandbox", *getattr(request, "param", ()))
    yield made
    made.close()


def started_with(*options: str) -> pytest.MarkDecorator:
    """A sandbox with these options."""
    return pytest.mark.parametrize("provider", [options], indirect=True, ids=" ".join)


def test_every_way_to_go_wrong_is_drawn_and_the_seed_repeats_it() -> None:
    mood = Mood(answers=0.22, seed=7)
    drawn = [hostile.answer(mood, number, now=0.0) for number in range(5000)]
    names = Counter(found[0] for found in drawn if found)
    assert set(names) == set(ANSWERS)
    assert sum(names.values()) / 5000 == pytest.approx(0.22, abs=0.02)
    assert [hostile.answer(mood, number, now=0.0) for number in range(5000)] == drawn
    assert [hostile.answer(replace(mood, seed=8), number, now=0.0) for number in range(5000)] != drawn


@pytest.mark.parametrize("name", ANSWERS)
def test_nothing_is_accepted_near_the_end_of_the_grace_time(name: str) -> None:
    mood = Mood(grace=5.0)
    found = [ANSWERS[name][1](Chance(str(seed)), mood, 0.0) for seed in range(200)]
    assert max(each.delay + each.late for each in found) <= 3.0
    assert all(each.people is None for each in found), "a call is accepted whole or not at all"


@started_with("--hostile", "1", "--seed", "3", "--grace", "3")
def test_what_is_drawn_is_what_the_client_sees_and_the_ledger_keeps(provider: Provider) -> None:
    mood, seen = Mood(answers=1.0, seed=3, grace=3.0), {}
    words = {"start": "RemoteProtocolError", "body": "RemoteProtocolError", "end": "RemoteProtocolError"}
    for number in range(1, 61):
        found = hostile.answer(mood, number, now=0.0)
        assert found is not None
        name, answer = found
        before = provider.control("ledger")["accepted"]
        got = provider.send(f"a{number}", f"b{number}")
        if answer.hangup or answer.late:
            assert got in {words["end"], "ReadError", "WriteError"}, (name, got)
        else:
            assert got == f"{answer.status}{' page' if answer.html else ''}", name
        limit = time.monotonic() + answer.late + 1
        expected = before + (2 if answer.accept else 0)
        while provider.control("ledger")["accepted"] != expected and time.monotonic() < limit:
            time.sleep(0.02)
        assert provider.control("ledger")["accepted"] == expected, name
        seen[name] = got
    assert len(seen) > 10
    assert sum(provider.control("counts")["hostile"].values()) == 60


@started_with("--seed", "3")
def test_the_mood_can_be_changed_and_ended(provider: Provider) -> None:
    assert provider.control("hostile", answers=1.0, grace=3.0)["answers"] == 1.0
    assert provider.control("counts")["hostile"] == {}
    provider.send("a", "b")
    assert sum(provider.control("counts")["hostile"].values()) == 1
    provider.control("hostile", answers=0)
    assert [provider.send(str(number)) for number in range(5)] == ["202"] * 5


@pytest.mark.parametrize("wish", [{"answers": 2}, {"answers": "often"}, {"luck": 1}, {"seed": 1.5}, {"grace": -1}])
def test_a_mood_that_does_not_exist_is_refused(provider: Provider, wish: dict[str, Any]) -> None:
    assert provider.http.post("/control/hostile", json=wish).status_code == 400


def test_a_page_that_says_too_large_is_never_for_one_person_alone(provider: Provider) -> None:
    assert ANSWERS["413 page"][1](Chance("1"), Mood(), 0.0).unless_alone
    numbers = [n for n in range(1, 2000) if (hostile.answer(Mood(answers=1.0), n, 0.0) or ("",))[0] == "413 page"]
    seed = next(s for s in range(1000) if (hostile.answer(Mood(answers=1, seed=s), 2, 0.0) or ("",))[0] == "413 page")
    assert numbers
    provider.send("warm-up")
    provider.control("hostile", answers=1.0, seed=seed)
    assert provider.send("alone") == "202"


def test_a_call_is_accepted_after_it_was_hung_up(provider: Provider) -> None:
    provider.control("next", answers=[{"late": 0.5}])
    began = time.monotonic()
    assert provider.send("a") in {"RemoteProtocolError", "ReadError"}
    assert time.monotonic() - began < 0.4
    assert provider.control("ledger")["accepted"] == 0
    while provider.control("ledger")["accepted"] == 0:
        assert time.monotonic() - began < 5
        time.sleep(0.02)
    assert provider.control("ledger")["by_message"] == {"a": 1}


def test_a_bad_address_that_is_not_named_refuses_every_call_with_it(provider: Provider) -> None:
    for _ in range(2):
        people = [{"to": [{"email": address}]} for address in ("a@example.com", "b+badcall@example.com")]
        response = provider.http.post("/v3/mail/send", json=_mail(people), headers=KEY)
        assert response.status_code == 400
        assert response.json()["errors"] == [{"message": "Bad Request", "field": None, "help": None}]
    assert provider.send("a") == "202"


def test_the_events_of_a_mail_are_lost_copied_late_or_reversed_by_the_seed() -> None:
    mood = Mood(events=1.0, seed=5)
    fates = [hostile.fate(mood, 1, index, PLAIN) for index in range(400)]
    assert fates == [hostile.fate(mood, 1, index, PLAIN) for index in range(400)]
    heard = [course for course, _ in fates]
    assert {course.copies for course in heard} == {0, 1, 2, 3, 46}
    assert any(course.waits and course.waits[0] == course.waits[1] > 0 for course in heard)
    assert any(course.waits and course.waits[0] > course.waits[1] for course in heard)
    assert any(nonsense is not None for _, nonsense in fates)
    assert hostile.fate(Mood(), 1, 1, PLAIN) == (PLAIN, None)


@started_with("--fast")
def test_a_fast_sandbox_checks_keeps_and_answers_but_shows_no_mail(provider: Provider, tmp_path: Path) -> None:
    assert provider.send("a", "b") == "202"
    assert provider.send("a", "a") == "400"
    lines = [json.loads(line) for line in (tmp_path / "sandbox" / "ledger.jsonl").read_text().splitlines()]
    assert [(line["call"], line["of"], line["dw_m"], line["dw_b"]) for line in lines] == [
        (1, 2, "a", None),
        (1, 2, "b", None),
    ]
    assert (tmp_path / "sandbox" / "mails.jsonl").read_bytes() == b""
    assert provider.http.get("/").status_code == 404
    assert provider.control("mails")["mails"] == []
    query = {"query": "to_email = 'a@example.com'", "limit": 10}
    (row,) = provider.http.post("/v3/logs", json=query, headers=KEY).json()["messages"]
    detail = provider.http.get(f"/v3/logs/{row['sg_message_id']}", headers=KEY).json()
    assert detail["custom_args"] == {"dw_m": "a"}


def test_a_fast_sandbox_does_not_open_a_ledger_again(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    command = [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--state", str(tmp_path), "--fast"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs an empty folder" in done.stderr


def test_the_command_line_refuses_what_is_no_probability(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dripwell.sandbox", "--state", str(tmp_path), "--hostile", "22"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--hostile" in done.stderr
