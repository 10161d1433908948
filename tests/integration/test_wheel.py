"""The wheel holds Dripwell, all of it and nothing else, and works where nobody has ever seen the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays as it is."""
    pytest.importorskip("wheel", reason="a wheel is built with the package `wheel`")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("dripwell", "workers"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    _run(
        [
            *PIP,
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--wheel-dir",
            str(out),
            str(source),
        ],
        source,
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """Every file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dripwell` in a fresh environment that holds the wheel; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    _run(
        [*PIP, "--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        folder,
    )
    # Behind the wheel on the path, and without this environment's own link to the checkout, which only a `site` folder
    # that is processed as such would follow.
    borrowed = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "zz-borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder / "bin" / "dripwell"


def _run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "DRIPWELL_"))}
    done = subprocess.run(
        command, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_wheel_holds_dripwell_and_its_metadata_and_nothing_else(names: list[str]) -> None:
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"dripwell"}
    assert {name.split("/")[0].rpartition(".")[2] for name in names} == {"dripwell", "dist-info"}


def test_every_file_that_the_program_reads_is_in_the_wheel(names: list[str]) -> None:
    kinds = (".py", ".sql", ".typed", ".html", ".j2", ".css", ".js", ".svg", ".txt", ".ico", ".png", ".woff2", ".json")
    for folder, name in ((ROOT / "dripwell", "dripwell"), (ROOT / "workers", "dripwell/workers")):
        there = {
            f"{name}/{path.relative_to(folder).as_posix()}"
            for path in folder.rglob("*")
            if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts
        }
        assert there - set(names) == set()
    for needed in ("storage/migrations/0001_record.sql", "py.typed", "workers/tasks.py", "storage/migrations/env.py"):
        assert f"dripwell/{needed}" in names
    assert any(name.startswith("dripwell/web/templates/") for name in names)
    assert any(name.startswith("dripwell/web/static/") for name in names)
    assert any(name.startswith("dripwell/sandbox/templates/") for name in names)


def test_no_test_campaign_or_secret_is_in_the_wheel(names: list[str]) -> None:
    wrong = ("tests/", "campaigns/", "config/", ".env", "secrets.json", "__pycache__", ".dripwell")
    assert [name for name in names if any(part in name for part in wrong)] == []


def test_the_installed_program_knows_its_version(program: Path, tmp_path: Path) -> None:
    assert "0.1.0" in _run([str(program), "--version"], tmp_path).stdout


def test_the_installed_program_is_the_one_from_the_wheel(program: Path, tmp_path: Path) -> None:
    code = "import dripwell, dripwell.web; print(dripwell.__file__); print(dripwell.web.__file__)"
    found = _run([str(program.parent / "python"), "-c", code], tmp_path).stdout.split()
    assert all(Path(path).is_relative_to(program.parent.parent) for path in found), found


def test_the_installed_program_reads_the_campaign_from_the_folder_it_runs_in(program: Path) -> None:
    _run([str(program), "lint", "campaigns/seven-benefits"], ROOT)


def test_celery_finds_the_installed_workers_under_one_name(program: Path, tmp_path: Path) -> None:
    code = "from dripwell.workers import app; app.loader.import_default_modules(); print(*sorted(app.tasks))"
    found = _run([str(program.parent / "python"), "-c", code], tmp_path, REDIS_URL="redis://127.0.0.1:1/0").stdout
    assert {"dripwell.plan", "dripwell.send", "dripwell.settle", "dripwell.ingest", "dripwell.audit"} <= set(
        found.split()
    )
