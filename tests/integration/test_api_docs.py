"""docs/reference/api.md and the OpenAPI document say the same."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from typing import Any

import pytest
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.services import keys
from dripwell.web.api.app import PREFIX
from tests.integration.callers import bearing, key_for
from tests.integration.conftest import ROOT, Mailed

PAGE = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^curl .*?(?=\n```$)", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def document(client: TestClient) -> Any:
    response = client.get(f"{PREFIX}/openapi.json")
    assert response.status_code == 200
    return response.json()


def test_every_path_of_the_document_is_explained_and_the_other_way_round(document: Any) -> None:
    paths = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert set(re.findall(r"^### `(GET|POST) (/\S+)`$", PAGE, re.MULTILINE)) == paths
    assert set(re.findall(r"\| `(GET|POST) (/\S+)` \|", PAGE)) == paths
    assert document["servers"] == [{"url": PREFIX}]


def test_the_page_names_every_scope() -> None:
    assert set(re.findall(r"^\| `([a-z:]+)` \| `(?:GET|POST)", PAGE, re.MULTILINE)) == set(keys.SCOPES)


def test_every_error_an_endpoint_declares_is_explained(document: Any) -> None:
    declared = {
        int(status)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    explained = {
        int(one) for row in re.findall(r"^\| (\d{3}(?:, \d{3})?) \|", PAGE, re.MULTILINE) for one in row.split(", ")
    }
    assert declared - {200} <= explained
    assert explained - declared == {405, 500}


def test_the_document_lists_the_names_this_installation_knows(document: Any, installation: Installation) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["EventAsked"]["properties"]["event"]["enum"] == list(installation.site.event_names())
    assert schemas["Consent"]["properties"]["topic"]["enum"] == [topic.name for topic in installation.site.topics]
    assert "HTTPValidationError" not in schemas


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_curl_example_works_as_it_stands(client: TestClient, mailed: Mailed, number: int) -> None:
    words = shlex.split(EXAMPLES[number].replace("\\\n", " "))
    url = next(word for word in words if word.startswith("https://"))
    path = url.removeprefix(mailed.installation.site.base_url).removeprefix("https://mail.kcla.example")
    pairs = list(pairwise(words))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = next((value for option, value in pairs if option == "-d"), None)
    if "Authorization" in headers:
        assert headers["Authorization"] == "Bearer $KEY"
        headers |= {"Authorization": bearing(key_for(mailed.installation))["authorization"]}
    response = client.request("GET" if body is None else "POST", path, content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert body is None or json.loads(body)["address"] == "maria@example.com"


def test_there_is_an_example_of_every_path(document: Any) -> None:
    asked = {one.split(PREFIX)[1].split()[0].replace("seven-benefits", "{name}") for one in EXAMPLES}
    assert asked == {*document["paths"], "/openapi.json"}
