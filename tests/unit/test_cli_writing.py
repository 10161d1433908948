"""lint, preview and schema work on files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dripwell.cli.main import program

ROOT = Path(__file__).parent.parent.parent
EMAILS = 7


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("campaigns", "config", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments)


def break_it(project: Path, old: str, new: str) -> None:
    path = project / "campaigns" / "seven-benefits" / "campaign.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_lint_passes_the_campaign_of_the_repository(project: Path) -> None:
    result = run("lint")
    assert result.exit_code == 0, result.output
    assert f"{EMAILS} emails of 1 campaign: 0 errors" in result.stdout


def test_lint_shows_the_line_and_what_to_write_instead(project: Path) -> None:
    break_it(project, "wait: 2 days", "wait: 2 dyas")
    result = run("lint", "seven-benefits")
    assert result.exit_code == 1
    assert "error[D101]: `2 dyas` is not a length of time" in result.stdout
    assert "--> campaigns/seven-benefits/campaign.yaml:" in result.stdout
    assert "did you mean `2 days`?" in result.stdout
    assert "\x1b" not in result.stdout


def test_lint_has_no_empty_heading_for_emails_that_cannot_be_read(project: Path) -> None:
    assert "seven-benefits:\n  1-adaptability" in run("lint", "--verbose").stdout
    document = project / "campaigns" / "seven-benefits" / "1-adaptability.md"
    document.write_text(document.read_text(encoding="utf-8") + "\n{% if first_name %}\nHello.\n", encoding="utf-8")
    result = run("lint", "--verbose")
    assert result.exit_code == 1
    assert "this {% if %} has no {% endif %}" in result.stdout
    assert "seven-benefits:\n\n" not in result.stdout


def test_lint_survives_yaml_that_is_none_and_bytes_that_are_no_text(project: Path) -> None:
    break_it(project, "steps:", "steps: [")
    assert run("lint").exit_code == 1
    (project / "campaigns" / "seven-benefits" / "campaign.yaml").write_bytes(b"\xff\xfe\x00 type: drip\x1b[2J")
    for form in ("text", "json", "github"):
        result = run("lint", "--format", form)
        assert result.exit_code == 1
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "\x1b" not in result.stdout


def test_lint_takes_the_path_of_a_campaign_from_anywhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    for path in (project, project / "campaigns" / "seven-benefits", project / "campaigns/seven-benefits/campaign.yaml"):
        assert run("lint", str(path)).exit_code == 0


def test_lint_live_refuses_placeholders_and_json_lists_them(project: Path) -> None:
    result = run("lint", "--live", "--json", "--verbose")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    assert value["version"] == 1
    assert value["campaigns"] == ["seven-benefits"]
    assert value["errors"] == len([one for one in value["problems"] if one["level"] == "error"]) > 0
    assert {"code", "level", "path", "line", "column", "length", "text", "help", "note"} <= set(value["problems"][0])
    assert "D513" in value["codes"]
    assert "config/site.yaml" in value["files"]


def test_lint_for_github_is_one_command_a_line(project: Path) -> None:
    break_it(project, "wait: 2 days", "wait: 2 dyas")
    result = run("lint", "--format", "github")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines
    assert all(line.startswith(("::error file=", "::warning file=")) for line in lines)
    assert "file=campaigns/seven-benefits/campaign.yaml,line=" in result.stdout
    assert "did you mean `2 days`?" in result.stdout


def test_lint_explains_a_code_and_suggests_the_nearest() -> None:
    assert run("lint", "--explain", "d301").stdout.startswith("D301: ")
    missing = run("lint", "--explain", "D3O1", "--json")
    assert missing.exit_code == 1
    assert json.loads(missing.stdout)["kind"] == "not_found"
    assert "D301" in missing.stderr


def test_a_misspelled_campaign_gets_a_suggestion(project: Path) -> None:
    result = run("lint", "seven-benefit")
    assert result.exit_code == 1
    assert "did you mean `seven-benefits`?" in result.stderr


def test_preview_writes_pages_texts_and_pictures_that_need_no_web(project: Path) -> None:
    result = run("preview", "seven-benefits", "--html", "out", "--as", "ordinary", "--as", "hostile", "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert len(value["emails"]) == EMAILS * 2
    page = (project / "out" / "1-adaptability-ordinary.html").read_text(encoding="utf-8")
    assert 'src="art/' in page or "art/shore-1.jpg" in page
    assert (project / "out" / "art" / "shore-1.jpg").exists()
    assert "Maria" in (project / "out" / "1-adaptability-ordinary.txt").read_text(encoding="utf-8")
    assert "<script>x" not in (project / "out" / "1-adaptability-hostile.html").read_text(encoding="utf-8")


def test_preview_of_one_step_and_of_a_step_that_is_none(project: Path) -> None:
    one = run("preview", "seven-benefits", "--html", "out", "--step", "5-minimal-side-effects", "--json")
    assert [email["email"] for email in json.loads(one.stdout)["emails"]] == ["5-minimal-side-effects-ordinary"]
    none = run("preview", "seven-benefits", "--html", "out", "--step", "5-minimal-side-effect")
    assert none.exit_code == 1
    assert "did you mean `5-minimal-side-effects`?" in none.stderr


def test_preview_asks_where_to_write(project: Path) -> None:
    result = run("preview", "seven-benefits")
    assert result.exit_code == 2
    assert "dripwell preview seven-benefits --html DIR" in result.stderr


def test_preview_of_broken_files_points_to_lint(project: Path) -> None:
    break_it(project, "wait: 2 days", "wait: 2 dyas")
    result = run("preview", "seven-benefits", "--html", "out")
    assert result.exit_code == 1
    assert result.stderr.endswith("dripwell lint seven-benefits\n")


def test_preview_into_a_file_says_so(project: Path) -> None:
    (project / "taken").write_text("", encoding="utf-8")
    result = run("preview", "seven-benefits", "--html", "taken/deeper")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: taken/deeper cannot be written")


def test_schema_check_finds_an_old_file_and_schema_mends_it(project: Path) -> None:
    assert run("schema", "--check").exit_code == 0
    path = project / "config" / "schema" / "site.schema.json"
    path.write_text("{}", encoding="utf-8")
    old = run("schema", "--check", "--json")
    assert old.exit_code == 1
    assert json.loads(old.stdout)["outdated"] == ["config/schema/site.schema.json"]
    assert json.loads(run("schema", "--json").stdout)["changed"] == ["config/schema/site.schema.json"]
    assert run("schema", "--check").exit_code == 0
