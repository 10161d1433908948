"""Reading a campaign's files: only its own, bounded, and never out of its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dripwell.content.files import campaign_names, read_sources
from dripwell.content.load import load
from dripwell.core.errors import ContentError, NotFoundError
from tests.unit.language_sources import BASE, CAMPAIGN, valid_sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An installation of its own, to break."""
    shutil.copytree(BASE, tmp_path / "home")
    return tmp_path / "home"


def test_the_sources_are_the_site_the_segments_the_campaign_and_the_theme(root: Path) -> None:
    (root / "templates/email/system").mkdir(parents=True)
    (root / "templates/email/base.mjml.j2").write_text("<mjml/>")
    (root / "templates/email/system/confirm.md").write_text("# Confirm")
    (root / "templates/email/picture.jpg").write_bytes(b"\xff\xd8")
    (root / "campaigns/other").mkdir()
    (root / "campaigns/other/campaign.yaml").write_text("type: drip\n")
    (root / "campaigns/welcome/.hidden.md").write_text("x")
    assert read_sources(root, "welcome") == {
        **valid_sources(),
        "templates/email/base.mjml.j2": "<mjml/>",
        "templates/email/system/confirm.md": "# Confirm",
    }
    assert campaign_names(root) == ["other", "welcome"]


@pytest.mark.parametrize("name", ["welcom", "Welcome", "../welcome", ".", "", "/etc"])
def test_a_campaign_that_does_not_exist_is_not_found(root: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="campaigns you have: welcome"):
        read_sources(root, name)


def test_the_nearest_campaign_is_suggested(root: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean `welcome`"):
        read_sources(root, "welcom")


def test_a_file_that_leads_out_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (root / "campaigns/welcome/3-leak.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(ContentError, match=r"3-leak\.md is a link"):
        read_sources(root, "welcome")


def test_a_campaign_folder_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "campaigns/welcome", tmp_path / "elsewhere")
    (root / "campaigns/linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ContentError, match="is a link"):
        read_sources(root, "linked")


def test_a_huge_file_is_read_no_further_than_the_limit_and_refused(root: Path) -> None:
    with (root / CAMPAIGN).open("ab") as file:
        file.truncate(50_000_000)
    sources = read_sources(root, "welcome")
    assert len(sources[CAMPAIGN]) <= 1_000_001
    (problem,) = load(sources, "welcome").problems
    assert problem.code == "D105"


def test_a_huge_email_is_refused(root: Path) -> None:
    (root / "campaigns/welcome/1-hello.md").write_text("ü" * 100_001, encoding="utf-8")
    (problem,) = load(read_sources(root, "welcome"), "welcome").problems
    assert (problem.code, problem.path) == ("D105", "campaigns/welcome/1-hello.md")


@pytest.mark.parametrize("path", [CAMPAIGN, "campaigns/welcome/1-hello.md"])
@pytest.mark.parametrize("junk", [b"\xff\xfen\x00", b"caf\xe9\n", b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_are_found_where_they_stand(root: Path, path: str, junk: bytes) -> None:
    kept = (root / path).read_bytes()
    (root / path).write_bytes(kept + b"# " + junk)
    (problem,) = load(read_sources(root, "welcome"), "welcome").problems
    assert (problem.path, problem.text) == (path, "this file is not UTF-8")
    assert problem.line == kept.count(b"\n") + 1


def test_a_theme_file_that_is_too_large_is_refused(root: Path) -> None:
    (root / "templates/email").mkdir(parents=True)
    (root / "templates/email/base.mjml.j2").write_text("x" * 500_001)
    with pytest.raises(ContentError, match="too large"):
        read_sources(root, "welcome")


def test_too_many_files_are_refused(root: Path) -> None:
    for number in range(500):
        (root / f"campaigns/welcome/x-{number}.md").write_text("x")
    with pytest.raises(ContentError, match="500 is the most"):
        read_sources(root, "welcome")
