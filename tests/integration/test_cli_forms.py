"""`dripwell forms`: the HTML for another website leads to the page, and the ledger of whoever signed up can be read."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.core.tokens import Purpose, sign
from dripwell.embedded.lock import hold
from dripwell.services import signup
from dripwell.storage import clock
from dripwell.storage.database import Database
from tests.integration.command import Project, copy_of_the_project

FORM = "series-request"


@pytest.fixture
def project(database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return copy_of_the_project(tmp_path, {"DATABASE_URL": database.dsn, "REDIS_URL": redis_url})


class Snippet(HTMLParser):
    """Reads an embedded form as a browser would: where it goes, and what it sends."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action, self.method, self.names, self.tags = "", "", list[str](), set[str]()
        self.ids, self.labels = set[str](), set[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if tag == "form":
            self.action, self.method = found["action"] or "", found["method"] or ""
        if tag == "input":
            self.names.append(found["name"] or "")
            self.ids.add(found["id"] or "")
        if tag == "label":
            self.labels.add(found["for"] or "")


def test_the_embedded_form_leads_to_the_page_with_everything_filled_in(project: Project, client: TestClient) -> None:
    snippet = Snippet(project.run("forms", "show", FORM, "--html").stdout)
    assert (snippet.method, snippet.action) == ("post", "https://mail.kcla.example/s/series-request")
    assert snippet.names == ["email", "first_name", "state"]
    assert snippet.ids == snippet.labels
    assert snippet.tags.isdisjoint({"script", "style", "iframe", "img", "link"})
    typed = {"email": "maria@example.com", "first_name": "Maria", "state": ""}
    page = client.post(snippet.action, data=typed, headers={"origin": "https://kcla.example"})
    assert page.status_code == 200
    assert "press the button once more" in page.text
    assert 'value="maria@example.com"' in page.text


def test_forms_are_listed_with_the_words_people_agree_to(project: Project, installation: Installation) -> None:
    (one,) = project.read("forms", "list")["forms"]
    form = installation.site.forms[0]
    assert (one["name"], one["topic"], one["consent"]) == (FORM, "seven-part-series", form.consent)
    assert one["url"] == "https://mail.kcla.example/s/series-request"
    assert FORM in project.run("forms", "list").stdout
    shown = project.run("forms", "show", FORM).stdout
    assert form.consent in shown
    assert one["wording_version"] in shown
    missing = project.run("forms", "show", "series-requst")
    assert missing.exit_code == 1
    assert FORM in missing.stderr


def test_hostile_words_in_the_site_stay_words_in_the_snippet(project: Project) -> None:
    site = project.root / "config" / "site.yaml"
    text = site.read_text(encoding="utf-8")
    site.write_text(text.replace("title: Seven-part series", "title: 'A <b>\"&'"), encoding="utf-8")
    html = project.run("forms", "show", FORM, "--html").stdout
    assert "A &lt;b&gt;&quot;&amp;" in html
    assert "b" not in Snippet(html).tags


def test_what_somebody_agreed_to_is_shown_with_its_proof(
    project: Project, client: TestClient, installation: Installation
) -> None:
    with installation.database.transaction() as connection:
        now = clock.read(connection).wall_now
    shown = signup.shown_at(installation.keys, now - timedelta(seconds=10))
    client.post(f"/s/{FORM}", data={"email": "maria@example.com", "dw-agree": "yes", "dw-shown": shown})
    with installation.database.transaction() as connection:
        mail = connection.exec_driver_sql("SELECT enrollment_id FROM signup_mail").scalar_one()
    client.post(f"/k/{sign(installation.keys, Purpose.CONFIRM, mail, now)}")
    # The command hashes addresses with the same pepper as the pages did.
    same = {"DRIPWELL_PEPPER": installation.pepper.decode()}
    (row,) = project.read("subscribers", "show", "maria@example.com", **same)["consents"]
    form = installation.site.forms[0]
    assert (row["topic"], row["action"], row["source"]) == ("seven-part-series", "give", f"form {FORM}")
    assert (row["wording"], row["page"]) == (form.consent, f"https://mail.kcla.example/s/{FORM}")
    assert row["asked_at"] < row["confirmed_at"] == row["given_at"]
    text = project.run("subscribers", "show", "maria@example.com", **same).stdout
    assert form.consent in text
    assert f"wording {row['version']}" in text
    assert "asked " in text
    assert "confirmed " in text
    assert f"page https://mail.kcla.example/s/{FORM}" in text


def test_forms_lead_to_the_pages_that_run_here(project: Project) -> None:
    with hold(project.root / "state", lasting=True) as held:
        held.announce({"web": "http://127.0.0.1:8123"})
        (one,) = project.read("forms", "list")["forms"]
        assert one["url"] == f"http://127.0.0.1:8123/s/{FORM}"
        assert f'action="http://127.0.0.1:8123/s/{FORM}"' in project.run("forms", "show", FORM, "--html").stdout
    (one,) = project.read("forms", "list")["forms"]
    assert one["url"] == f"https://mail.kcla.example/s/{FORM}"
