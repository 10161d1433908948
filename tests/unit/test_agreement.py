"""What a form asks: its keys in config/site.yaml, the words beside each box, and their version."""

from __future__ import annotations

import pytest

from dripwell.content.load import load_site
from dripwell.core.agreement import Asked, asked_by, offer, version_of
from dripwell.core.campaign import Site
from dripwell.core.errors import ConfigurationError
from dripwell.settings import Settings
from tests.unit.language_sources import valid_sources

SITE = "config/site.yaml"


def read(also: str) -> tuple[Site | None, list[str]]:
    """The valid site whose first form has this `also`, and what is wrong with it."""
    sources = valid_sources()
    lines = sources[SITE].split("\n")
    place = next(number for number, line in enumerate(lines) if line.startswith("forms:"))
    consent = next(number for number in range(place, len(lines)) if lines[number].lstrip().startswith("consent:"))
    indent = " " * (len(lines[consent]) - len(lines[consent].lstrip()))
    lines.insert(consent, f"{indent}also: {also}")
    site, problems = load_site({**sources, SITE: "\n".join(lines)})
    return site, [f"{problem.line - consent} {problem.code} {problem.text}" for problem in problems]


def test_a_form_offers_further_topics() -> None:
    plain, _ = load_site(valid_sources())
    assert plain is not None
    own = plain.forms[0].topic
    other = next(topic for topic in plain.topics if topic.name != own)
    site, problems = read(f"[{other.name}]")
    assert problems == []
    assert site is not None
    form = site.forms[0]
    assert form.also == (other.name,)
    assert asked_by(form, site) == (Asked(own, form.consent),)
    everything = frozenset({own, other.name, "no-such-topic"})
    assert asked_by(form, site, everything) == (Asked(own, form.consent), Asked(other.name, offer(other)))
    assert other.title in offer(other)
    assert other.about in offer(other)


def test_what_a_form_offers_is_a_topic_another_one_and_once() -> None:
    plain, _ = load_site(valid_sources())
    assert plain is not None
    own = plain.forms[0].topic
    other = next(topic.name for topic in plain.topics if topic.name != own)
    for also, code, words in (
        ("[no-such-topic]", "D201", "no-such-topic"),
        (f"[{own}]", "D101", "own topic"),
        (f"[{other}, {other}]", "D101", "offered twice"),
        (other, "D101", "list"),
    ):
        site, problems = read(also)
        assert site is None
        (problem,) = problems
        assert problem.startswith(f"1 {code} ")
        assert words in problem


def test_a_version_is_the_same_for_the_same_words_and_no_others() -> None:
    assert version_of("Email me.") == version_of("Email me.") == "6c806fa4d63f"
    assert version_of("Email me.") != version_of("Email me!")
    assert len(version_of("")) == 12


def test_a_proxy_that_is_no_network_is_refused_by_its_name() -> None:
    assert Settings.read({"DRIPWELL_TRUSTED_PROXY": "127.0.0.1, 10.0.0.0/8"}).trusted_proxy == "127.0.0.1, 10.0.0.0/8"
    with pytest.raises(ConfigurationError, match="DRIPWELL_TRUSTED_PROXY"):
        Settings.read({"DRIPWELL_TRUSTED_PROXY": "my-proxy"})
