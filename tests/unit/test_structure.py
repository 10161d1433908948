"""The house keeps its shape: who may import whom, what is allowed in which room, and nothing is left undeclared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from importlinter.api import read_configuration
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dripwell import bootstrap
from dripwell.core.campaign import Lane
from dripwell.settings import Settings

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted([*(ROOT / "dripwell").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])
EVERYWHERE = ("dripwell/", "workers/")


@dataclass(frozen=True)
class Rule:
    """`names` (dotted, or their children) may be used only in files whose path starts with one of `rooms`."""

    about: str
    names: tuple[str, ...]
    rooms: tuple[str, ...]


ONLY_IN = (
    Rule("Celery", ("celery", "kombu"), ("workers/",)),
    Rule(
        "SQLAlchemy, psycopg and redis-py",
        ("sqlalchemy", "psycopg", "psycopg_pool", "alembic", "redis"),
        ("dripwell/storage/", "dripwell/bootstrap.py"),
    ),
    Rule(
        "HTTP and SMTP clients",  # the sandbox posts webhooks as the provider, the demo acts as its invented people
        ("sendgrid", "python_http_client", "httpx2", "httpcore2", "urllib.request", "http.client", "smtplib"),
        ("dripwell/delivery/", "dripwell/sandbox/", "dripwell/cli/demo.py", "dripwell/cli/crowd.py"),
    ),
    Rule("the sendgrid package", ("sendgrid", "python_http_client"), ("dripwell/delivery/",)),
    Rule("the environment", ("os.environ", "os.getenv", "os.environb", "os.putenv"), ("dripwell/settings.py",)),
    Rule(
        "the wall clock",
        (
            "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
            "time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime",
        ),
        ("dripwell/bootstrap.py", "dripwell/sandbox/__main__.py"),
    ),
    Rule(
        "chance",  # the demo's crowd is invented from its seed; a database's password is made where the database is
        ("random", "secrets", "uuid.uuid1", "uuid.uuid4", "os.urandom"),
        (
            "dripwell/bootstrap.py", "dripwell/sandbox/__main__.py", "dripwell/cli/crowd.py",
            "dripwell/embedded/servers.py",
        ),
    ),
    Rule("YAML and MJML", ("ruamel", "yaml", "mjml", "css_inline", "markdown_it", "nh3"), ("dripwell/content/",)),
    Rule("Jinja", ("jinja2",), ("dripwell/content/", "dripwell/web/", "dripwell/sandbox/")),
)  # fmt: skip


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def used(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Every dotted name that a module imports or reaches through an import, with its line. Annotations do not count."""
    known: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            value: ast.expr = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id in known:
                yield ".".join([known[value.id], *reversed(parts)]), node.lineno


def breaches(rule: Rule, module: ast.Module, path: str) -> list[str]:
    if path.startswith(rule.rooms):
        return []
    return [
        f"{path}:{line} uses {name}"
        for name, line in used(module)
        if any(name == forbidden or name.startswith(forbidden + ".") for forbidden in rule.names)
    ]


@pytest.mark.parametrize("rule", ONLY_IN, ids=lambda rule: rule.about)
def test_each_thing_stays_in_its_room(rule: Rule) -> None:
    assert [breach for path in SOURCES for breach in breaches(rule, tree(path), shown(path))] == []


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ("Celery", "from celery import Celery"),
        ("SQLAlchemy, psycopg and redis-py", "import sqlalchemy.exc as x"),
        ("SQLAlchemy, psycopg and redis-py", "from psycopg.rows import dict_row"),
        ("HTTP and SMTP clients", "import urllib.request"),
        ("the environment", "import os\nos.environ['A']"),
        ("the environment", "from os import environ as e"),
        ("the wall clock", "from datetime import datetime as d\nd.now()"),
        ("the wall clock", "import datetime\ndatetime.datetime.now()"),
        ("the wall clock", "import time as t\nt.time()"),
        ("the wall clock", "from time import time"),
        ("chance", "import uuid\nuuid.uuid4()"),
        ("chance", "import random"),
        ("YAML and MJML", "from ruamel.yaml import YAML"),
        ("Jinja", "import jinja2"),
    ],
)
def test_the_room_check_sees_every_way_of_writing_it(about: str, code: str) -> None:
    (rule,) = (rule for rule in ONLY_IN if rule.about == about)
    assert breaches(rule, ast.parse(code), "dripwell/core/x.py")
    assert not breaches(rule, ast.parse("import time\ntime.monotonic()\nfrom uuid import UUID"), "dripwell/core/x.py")


def test_imports_go_only_to_the_right() -> None:
    configuration = read_configuration(str(ROOT / "pyproject.toml"))
    assert [contract["type"] for contract in configuration["contracts_options"]] == ["layers"]
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def imported_packages(path: Path) -> set[str]:
    return {name for name, _ in used(tree(path)) if name.startswith("dripwell.")}


def test_the_sandbox_shares_no_code_with_what_it_judges() -> None:
    for path in (ROOT / "dripwell" / "sandbox").rglob("*.py"):
        rooms = {name.split(".")[1] for name in imported_packages(path)}
        assert rooms <= {"sandbox", "core"}, shown(path)


def test_values_are_handed_down_and_never_the_settings() -> None:
    for room in ("core", "content", "storage", "delivery", "services", "embedded", "sandbox"):
        for path in (ROOT / "dripwell" / room).rglob("*.py"):
            assert not any(name.startswith("dripwell.settings") for name in imported_packages(path)), shown(path)


# Celery carries doorbells


def calls(module: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


WORKERS = [path for path in SOURCES if shown(path).startswith("workers/")]


@pytest.mark.parametrize("path", WORKERS, ids=shown)
def test_no_task_waits_repeats_or_chains(path: Path) -> None:
    for call in calls(tree(path)):
        keywords = {keyword.arg for keyword in call.keywords}
        assert not keywords & {"eta", "countdown", "link", "link_error", "retry_policy", "autoretry_for", "bind"}, (
            call.lineno
        )
        assert name_of(call) not in {
            "retry",
            "chord",
            "chain",
            "group",
            "chunks",
            "starmap",
            "signature",
            "subtask",
            "AsyncResult",
        }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert not {alias.name for alias in node.names} & {"chord", "chain", "group", "signature"}, node.lineno


def tasks() -> list[ast.FunctionDef]:
    module = tree(ROOT / "workers" / "tasks.py")
    return [node for node in module.body if isinstance(node, ast.FunctionDef) and node.decorator_list]


def test_a_doorbell_carries_a_lane_or_nothing() -> None:
    assert tasks()
    for task in tasks():
        arguments = [argument.arg for argument in (*task.args.posonlyargs, *task.args.args, *task.args.kwonlyargs)]
        assert arguments in ([], ["lane"]), task.name
        assert task.args.vararg is None
        assert task.args.kwarg is None


def test_every_task_has_a_name_of_its_own_and_is_thin() -> None:
    names = []
    for task in tasks():
        (decorator,) = task.decorator_list
        assert isinstance(decorator, ast.Call)
        (name,) = (keyword.value for keyword in decorator.keywords if keyword.arg == "name")
        assert isinstance(name, ast.Constant)
        names.append(name.value)
        assert len(task.body) == 2, f"{task.name}: a docstring and one call"
    assert sorted(names) == sorted(set(names))


def scheduled() -> dict[str, dict[str, Any]]:
    namespace: dict[str, Any] = {}
    source = (ROOT / "workers" / "schedule.py").read_text(encoding="utf-8")
    exec(compile(source, "schedule.py", "exec", dont_inherit=True), namespace)
    found: dict[str, dict[str, Any]] = namespace["SCHEDULE"]
    return found


def test_every_queue_that_is_rung_is_served() -> None:
    served = [queue for queues in bootstrap.QUEUES.values() for queue in queues]
    assert sorted(served) == sorted(set(served))
    rung = {entry["options"]["queue"] for entry in scheduled().values()}
    assert rung == set(served)
    assert {lane.value for lane in Lane} <= set(served)


def test_what_beat_rings_are_tasks_there_are_and_every_ring_expires() -> None:
    declared = {
        str(keyword.value.value)
        for task in tasks()
        for decorator in task.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
        if isinstance(keyword.value, ast.Constant)
    }
    assert {entry["task"] for entry in scheduled().values()} == declared
    for name, entry in scheduled().items():
        assert entry["options"]["expires"] <= 60, name
        assert entry["args"] in ((), (name,)), name


def test_every_queue_that_services_ring_is_served_or_leads_to_one() -> None:
    known = {queue for queues in bootstrap.QUEUES.values() for queue in queues} | {"settle", "audit"}
    for path in SOURCES:
        for call in calls(tree(path)):
            if name_of(call) == "ring" and len(call.args) == 2 and isinstance(call.args[1], ast.Constant):
                assert call.args[1].value in known, f"{shown(path)}:{call.lineno}"


# Nothing is swallowed, nothing is left for later


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            silent = all(isinstance(line, ast.Pass | ast.Continue) or _is_constant(line) for line in node.body)
            assert node.type is not None, f"a bare except in line {node.lineno}"
            assert not (broad and silent), f"an error is swallowed in line {node.lineno}"


def _is_constant(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_every_module_and_public_function_says_what_it_is_for(path: Path) -> None:
    module = tree(path)
    if module.body:
        assert ast.get_docstring(module), "the module has no docstring"
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


# What is declared is what there is


def packages(folder: Path, name: str) -> set[str]:
    return {".".join((name, *init.parent.relative_to(folder).parts)) for init in folder.rglob("__init__.py")}


def test_every_package_on_disk_is_declared_and_every_module_is_in_a_package() -> None:
    declared = PYPROJECT["tool"]["setuptools"]["packages"]
    on_disk = packages(ROOT / "dripwell", "dripwell") | packages(ROOT / "workers", "dripwell.workers")
    assert sorted(declared) == sorted(on_disk)
    assert [shown(path) for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


def test_every_import_comes_from_a_declared_dependency_or_the_standard_library() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    declared = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]}
    optional = {canonicalize_name(Requirement(text).name) for texts in extras.values() for text in texts}
    # Parts that their owner pins and hands out in its own interface: error details, the HTTP client it is built on.
    declared |= {
        part
        for part, owner in {
            "pydantic-core": "pydantic",
            "python-http-client": "sendgrid",
            "markupsafe": "jinja2",
        }.items()
        if owner in declared
    }
    lazy = {"playwright"}  # asked for only when somebody wants pictures, who is told how to install it
    provided: dict[str, set[str]] = {}
    for distribution in distributions():
        for module in modules_of(distribution):
            provided.setdefault(module, set()).add(canonicalize_name(distribution.name))
    for path in SOURCES:
        for name, line in used(tree(path)):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in ("dripwell", "workers", "__future__"):
                continue
            allowed = declared | (optional if top in lazy or shown(path).startswith("dripwell/embedded/") else set())
            assert provided.get(top, set()) & allowed, f"{shown(path)}:{line} imports {top}, which is not declared"


def modules_of(distribution: Distribution) -> set[str]:
    return {file.parts[0].removesuffix(".py") for file in distribution.files or () if file.suffix in (".py", ".so")}


def test_every_setting_is_in_the_example_environment() -> None:
    text = (ROOT / "config" / "env.example").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)) == sorted(Settings.variables())


def test_every_setting_is_on_its_page() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", text, re.MULTILINE) == Settings.variables()


def test_the_rooms_of_the_house_are_those_that_the_import_rule_names() -> None:
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    named = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    there = {f"dripwell.{path.stem}" for path in (ROOT / "dripwell").iterdir() if (path / "__init__.py").exists()}
    there |= {f"dripwell.{path.stem}" for path in (ROOT / "dripwell").glob("*.py") if path.stem != "__init__"}
    assert named == there | {"workers"}


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_every_link_and_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target
    for named in re.findall(r"`((?:dripwell|tests|workers|docs|config)/[\w./-]+\.\w+)`", text):
        assert (ROOT / named).exists(), named


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in pages():
        name = page.relative_to(ROOT / "docs").as_posix() if page.is_relative_to(ROOT / "docs") else f"../{page.name}"
        assert page.name == "README.md" or f"({name})" in index, name


# What must never be in the repository

TEXTS = (
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".lock",
    ".txt",
    ".j2",
    ".html",
    ".css",
    ".js",
    ".sql",
    ".json",
    ".example",
    "",
)


def repository() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout, so nobody says which files belong to it")
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file() and Path(name).suffix in TEXTS]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    private = re.compile(r"(?<![\w./:-])/(?:home|Users|work|root|mnt|workspace)/[\w.-]+")
    for path in repository():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            assert not private.search(line), f"{shown(path)}:{number}"


def test_no_lock_names_a_registry() -> None:
    locks = sorted(ROOT.glob("*.lock"))
    assert locks
    for path in locks:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path.name
        assert "index-url" not in text, path.name
        pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert all(re.match(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==", line) for line in pinned), path.name
        assert text.count("--hash=sha256:") >= len(pinned), path.name


def test_no_note_is_left_for_later() -> None:
    later = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XXX|HACK)\b")
    for path in SOURCES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not later.search(line), f"{shown(path)}:{number}"


# Licenses

FREE = re.compile(
    r"\b(?:MIT(?:-0|-CMU)?|BSD(?:-[23]-Clause)?|0BSD|Apache|ISC|ISCL|PSF|Python Software Foundation|Python-2\.0|"
    r"Unlicense|public domain|CC0|Zlib|HPND|PostgreSQL|Unicode|MPL|Mozilla Public License)\b",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License|SSPL|Commons.Clause|Elastic", re.IGNORECASE)
LIBRARIES_ONLY = {"psycopg": "LGPL", "psycopg-binary": "LGPL", "psycopg-pool": "LGPL"}
"""Used unchanged and as libraries, which the LGPL allows."""


def closure() -> list[Distribution]:
    """Dripwell's dependencies, theirs and so on, as far as they are installed here; tools for development too."""
    found: dict[str, Distribution] = {}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        Requirement(text) for text in (*PYPROJECT["project"]["dependencies"], *(t for e in extras.values() for t in e))
    ]
    installed = {canonicalize_name(distribution.name): distribution for distribution in distributions()}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found or name not in installed:
            continue
        found[name] = installed[name]
        for text in installed[name].requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                wanted.append(inner)
    return [found[name] for name in sorted(found)]


def license_of(distribution: Distribution) -> str:
    metadata = distribution.metadata
    expression = metadata.get("License-Expression") or ""
    classified = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    own = (metadata.get("License") or "").strip().partition("\n")[0]
    return (
        expression
        or "; ".join(line.rpartition("::")[2].strip() for line in classified)
        or own
        or first_line(distribution)
    )


def first_line(distribution: Distribution) -> str:
    """Of its license file, for a package whose metadata only names the file."""
    for name in distribution.metadata.get_all("License-File") or ():
        text = distribution.read_text(f"licenses/{name}") or distribution.read_text(name) or ""
        if text.strip():
            return text.strip().partition("\n")[0]
    return ""


def test_every_dependency_may_be_used_in_a_program_under_the_apache_license() -> None:
    names = [canonicalize_name(distribution.name) for distribution in closure()]
    assert {"celery", "sqlalchemy", "sendgrid", "psycopg", "pytest"} <= set(names)
    for distribution in closure():
        name, terms = canonicalize_name(distribution.name), license_of(distribution)
        if name in LIBRARIES_ONLY:
            assert "Lesser" in terms or "LGPL" in terms, f"{name}: {terms}"
            continue
        assert not COPYLEFT.search(terms), f"{name}: {terms}"
        assert FREE.search(terms), f"{name} does not say under which license it is: {terms!r}"


@pytest.mark.parametrize(
    "terms", ["GPL-3.0-only", "GNU General Public License v2", "AGPL-3.0", "GNU Affero General Public License"]
)
def test_the_license_check_knows_what_to_refuse(terms: str) -> None:
    assert COPYLEFT.search(terms)
