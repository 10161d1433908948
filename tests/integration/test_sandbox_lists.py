"""The sandbox's suppression lists, and our adapter and our pass against them: a real process on a real port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.address import address_hash
from dripwell.delivery.lists import PAGE, Done, Later, Page
from dripwell.delivery.sendgrid_lists import SendGridLists
from dripwell.services import leave, sync
from dripwell.storage import clock, provider_lists, suppressions
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.command import copy_of_the_project

KEY = {"Authorization": f"Bearer {bootstrap.SANDBOX_KEY}"}


class Sandbox:
    """A running sandbox over one state folder."""

    def __init__(self, state: Path, *more: str) -> None:
        self.state, self.more = state, more
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "dripwell.sandbox", "--port", "0", "--state", str(self.state), *self.more]
        command += ["--key", bootstrap.SANDBOX_KEY]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.:]+", line := self.process.stdout.readline())
        assert found, line
        self.url = found[0]
        self.http = httpx2.Client(base_url=self.url, trust_env=False, timeout=10)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def send(self, *addresses: str) -> list[str]:
        """One call to these people; returns the log's word for what became of each."""
        body = {
            "from": {"email": "clinic@mail.kcla.example"},
            "subject": "Hello",
            "content": [{"type": "text/plain", "value": "Hello"}],
            "personalizations": [{"to": [{"email": address}]} for address in addresses],
        }
        answer = self.http.post("/v3/mail/send", json=body, headers=KEY)
        assert answer.status_code == 202, answer.text
        return [self.newest(address)["status"] for address in addresses]

    def newest(self, address: str) -> dict[str, Any]:
        query = {"query": f"to_email = '{address}'", "limit": 10}
        found = self.http.post("/v3/logs", json=query, headers=KEY).json()["messages"]
        return self.http.get(f"/v3/logs/{found[0]['sg_message_id']}", headers=KEY).json()  # type: ignore[no-any-return]

    def why(self, address: str) -> str:
        """Why the newest mail to this address was dropped."""
        (event,) = self.newest(address)["events"]
        assert event["event"] == "dropped"
        return str(event["reason"])

    def control(self, **wish: Any) -> dict[str, Any]:
        answer = self.http.post("/control/lists", json=wish)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def listed(self, name: str) -> list[str]:
        return [entry["email"] for entry in self.http.get("/control/lists").json()[name]]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with closing(Sandbox(tmp_path / "sandbox", "--late", "0")) as made:
        yield made


@pytest.fixture
def lists(sandbox: Sandbox) -> Iterator[SendGridLists]:
    with closing(SendGridLists(bootstrap.SANDBOX_KEY, sandbox.url, deadline=5.0)) as made:
        yield made


@pytest.mark.parametrize(
    ("tag", "name", "first", "why"),
    [
        ("bounce", "bounces", "bounced", "Bounced Address"),
        ("asyncbounce", "bounces", "bounced", "Bounced Address"),
        ("complain", "spam_reports", "delivered", "Spam Reporting Address"),
        ("unsubscribe", "unsubscribes", "delivered", "Unsubscribed Address"),
        ("invalid", "invalid_emails", "dropped", "Invalid"),
    ],
)
def test_what_becomes_of_a_mail_puts_its_address_on_a_list_and_the_next_one_is_dropped(
    sandbox: Sandbox, tag: str, name: str, first: str, why: str
) -> None:
    address = f"Sam+{tag}@example.com"
    assert sandbox.send(address, "joe@example.com") == [first, "delivered"]
    assert sandbox.listed(name) == [address]
    assert sandbox.send(address.upper(), "joe@example.com") == ["dropped", "delivered"]
    assert sandbox.why(address.upper()) == why
    sandbox.kill()
    sandbox.start()
    assert sandbox.listed(name) == [address]
    assert sandbox.why(address.upper()) == why
    assert sandbox.http.get("/control/ledger").json()["accepted"] == 4


def test_a_full_mailbox_is_blocked_and_the_next_mail_is_tried_again(sandbox: Sandbox) -> None:
    address = "sam+softbounce@example.com"
    assert sandbox.send(address) == ["blocked"]
    assert sandbox.listed("blocks") == [address]
    assert sandbox.send(address) == ["blocked"]


def test_lists_are_changed_by_a_test_and_whoever_leaves_them_is_mailed_again(sandbox: Sandbox) -> None:
    sandbox.control(add={"bounces": ["sam@example.com"], "unsubscribes": ["joe@example.com"]})
    assert sandbox.send("sam@example.com", "joe@example.com") == ["dropped", "dropped"]
    sandbox.control(remove={"bounces": ["sam@example.com"]})
    assert sandbox.send("sam@example.com", "joe@example.com") == ["delivered", "dropped"]
    for wrong in ({"add": {"nolist": ["a@example.com"]}}, {"add": {"bounces": "a@example.com"}}, {"put": {}}, [1]):
        assert sandbox.http.post("/control/lists", json=wrong).status_code == 400
    assert sandbox.listed("bounces") == []


def test_erasing_takes_a_person_off_every_list_and_out_of_the_file(sandbox: Sandbox) -> None:
    address = "sam+bounce@example.com"
    sandbox.send(address, "joe+bounce@example.com")
    body = {"email_addresses": [address]}
    assert sandbox.http.post("/v3/recipients/erasejob", json=body, headers=KEY).status_code == 202
    assert sandbox.listed("bounces") == ["joe+bounce@example.com"]
    assert not any(address.encode() in file.read_bytes() for file in sandbox.state.iterdir() if file.is_file())


def test_a_fast_sandbox_drops_nobody_and_fills_no_list(tmp_path: Path) -> None:
    with closing(Sandbox(tmp_path / "fast", "--fast")) as fast:
        fast.send("sam+bounce@example.com")
        assert fast.send("sam+bounce@example.com") == ["bounced"]
        assert fast.listed("bounces") == []


# Our adapter


def test_the_adapter_reads_pages_and_adds_and_removes(sandbox: Sandbox, lists: SendGridLists) -> None:
    many = [f"p{number}@example.com" for number in range(PAGE + 3)]
    assert lists.add(many) == Done()
    first, second = (lists.page("unsubscribes", since=None, offset=offset) for offset in (0, PAGE))
    assert isinstance(first, Page)
    assert isinstance(second, Page)
    assert {one.address for one in (*first.entries, *second.entries)} == set(many)
    assert (first.is_last, second.is_last) == (False, True)
    assert lists.remove("unsubscribes", many[0]) == Done()
    assert lists.remove("unsubscribes", "nobody+at/all?x@example.com") == Done()
    sandbox.control(add={"bounces": ["a@example.com"]})
    assert lists.remove("bounces", "a@example.com") == Done()
    assert (sandbox.listed("bounces"), many[0] in sandbox.listed("unsubscribes")) == ([], False)


@pytest.mark.parametrize(
    ("answer", "reason", "after", "account"),
    [
        ({"status": 200, "body": '[{"email": "a@exam'}, "no JSON", None, False),
        ({"status": 200, "body": "\x00\x01"}, "no JSON", None, False),
        ({"status": 200, "body": "[" * 100_000}, "no JSON", None, False),
        ({"status": 200, "body": '{"error": "maria@example.com"}'}, "no list", None, False),
        ({"status": 200, "body": "[" + "1," * 20_000 + "1]"}, "no list", None, False),
        ({"status": 200, "body": "[" + '"x",' * 1_300_000 + "1]"}, "", None, False),  # 5 MB
        ({"status": 401}, "401", None, True),
        ({"status": 403}, "403", None, True),
        ({"status": 404}, "404", None, True),
        ({"status": 500, "body": "<html>maria@example.com SG.secret"}, "500", None, False),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "302", None, False),
        ({"status": 429, "headers": {"Retry-After": "7"}}, "429", timedelta(seconds=7), False),
        ({"status": 429, "headers": {"Retry-After": "999999"}}, "429", timedelta(hours=1), False),
        ({"status": 429, "headers": {"Retry-After": "soon"}}, "429", timedelta(minutes=1), False),
    ],
    ids=["cut", "binary", "deep", "object", "20001 rows", "5 MB", "401", "403", "404", "500", "302", "429", "429 long",
         "429 word"],
)  # fmt: skip
def test_a_hostile_answer_is_a_value_with_a_reason(
    sandbox: Sandbox, lists: SendGridLists, answer: dict[str, Any], reason: str, after: timedelta | None, account: bool
) -> None:
    sandbox.control(answers=[{**answer, "accept": False}])
    found = lists.page("bounces", since=None, offset=0)
    assert isinstance(found, Later)
    assert reason in found.reason
    assert found.reason
    assert len(found.reason) <= 200
    assert not any(word in found.reason for word in ("maria", "SG.secret"))
    assert (found.after, found.account) == (after, account)
    assert isinstance(lists.page("bounces", since=None, offset=0), Page), "the next answer is a good one again"


def test_unknown_fields_and_rows_that_name_nobody_do_not_stop_the_rest(sandbox: Sandbox, lists: SendGridLists) -> None:
    body = (
        '[{"email": "a@example.com", "created": 1700000000, "brand": {"new": []}, "status": "5.1.1"}, 7, null, {},'
        ' {"email": 4}, {"email": "b@example.com", "created": "soon"}, {"email": "c@example.com", "created": 1e300},'
        ' {"email": "no address"}]'
    )
    sandbox.control(answers=[{"status": 200, "body": body}])
    page = lists.page("bounces", since=None, offset=0)
    assert isinstance(page, Page)
    assert [(one.address, one.at and int(one.at.timestamp()), one.status) for one in page.entries] == [
        ("a@example.com", 1_700_000_000, "5.1.1"),
        ("b@example.com", None, ""),
        ("c@example.com", None, ""),
    ]
    assert (page.rows, page.unreadable) == (8, 5)


# The pass that runs


@pytest.fixture
def wired(installation: Installation, sandbox: Sandbox) -> Installation:
    """The installation, with this sandbox as its provider."""
    return replace(installation, settings=installation.settings.model_copy(update={"provider_url": sandbox.url}))


def a_pass(wired: Installation) -> int:
    return bootstrap.run_pass(wired, "sync")


def test_the_pass_takes_in_what_the_webhook_never_told_and_pushes_what_we_decided(
    wired: Installation, sandbox: Sandbox
) -> None:
    gone, left, called = (
        "sam+bounce+lostevents@example.com",
        "ann+unsubscribe+lostevents@example.com",
        "joe@example.com",
    )
    with wired.database.transaction() as connection:
        for address in (gone, left, called):
            rows.subscriber(connection, address, pepper=wired.pepper)
        hashed = {address: address_hash(wired.pepper, address) for address in (gone, left, called)}
        row = leave.Unwanted(hashed[called], "all", "unsubscribed")
        leave.suppress_addresses(connection, [row], source=leave.STAFF, times=clock.read(connection))
    sandbox.send(gone, left)
    assert a_pass(wired) > 0
    with wired.database.transaction() as connection:
        assert set(suppressions.reasons(connection, list(hashed.values()))) == {
            (hashed[gone], "all"),
            (hashed[left], "marketing"),
            (hashed[called], "all"),
        }
    a_pass(wired)
    assert sorted(sandbox.listed("unsubscribes")) == sorted([called, left])
    assert sandbox.send(called) == ["dropped"]


def test_a_refused_key_is_said_once_an_hour_and_the_pass_goes_on_being_called(
    wired: Installation, sandbox: Sandbox
) -> None:
    sandbox.control(answers=[{"status": 401, "times": 50}])
    for _ in range(3):
        a_pass(wired)
    assert sandbox.http.get("/control/lists").json()["scripted"] == 49
    with wired.database.transaction() as connection:
        quiet = provider_lists.quiet(connection)
        now = clock.read(connection).wall_now
    assert quiet.is_on
    assert quiet.reason.startswith("401")
    assert quiet.until is not None
    assert timedelta(minutes=59) < quiet.until - now <= timedelta(hours=1)


def test_a_list_that_never_ends_is_left_after_a_page_and_the_others_are_read(
    wired: Installation, sandbox: Sandbox
) -> None:
    sandbox.control(add={"unsubscribes": ["last@example.com"]})
    page = "[" + ",".join(f'{{"email": "p{number}@example.com", "created": 1}}' for number in range(PAGE)) + "]"
    sandbox.control(answers=[{"status": 200, "body": page, "times": 2}])
    a_pass(wired)
    with wired.database.transaction() as connection:
        found = suppressions.reasons(connection, [address_hash(wired.pepper, "last@example.com")])
        assert [scope for _, scope in found] == ["marketing"]
        sync.begin(connection)


def test_the_command_says_what_differs_and_then_makes_it_agree(
    sandbox: Sandbox, database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    servers = {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url, "DRIPWELL_PROVIDER_URL": sandbox.url}
    project = copy_of_the_project(tmp_path / "project", servers)
    project.added("joe@example.com")
    project.read("suppressions", "add", "joe@example.com", "--reason", "he called")
    sandbox.control(add={"bounces": ["sam@example.com"]})
    for _ in range(2):
        found = project.read("suppressions", "sync", "--dry-run")
        assert {one["name"]: one["new"] for one in found["lists"]} == {
            "bounces": 1,
            "spam_reports": 0,
            "invalid_emails": 0,
            "unsubscribes": 0,
        }
        assert (found["unlisted"], found["stopped"]) == (1, "")
    moved = project.read("suppressions", "sync")
    assert (moved["pushed"], moved["added"], moved["waiting"], moved["reason"]) == (1, 1, 0, "")
    assert sandbox.listed("unsubscribes") == ["joe@example.com"]
    found = project.read("suppressions", "sync", "--dry-run")
    assert (sum(one["new"] for one in found["lists"]), found["unlisted"]) == (0, 0)
    sandbox.control(answers=[{"status": 401}])
    refused = project.run("suppressions", "sync", "--dry-run")
    assert refused.exit_code == 1
    assert "401" in refused.stdout
