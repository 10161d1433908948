"""Invented people to look at emails with, and to lint them with: the names that break other systems."""

from __future__ import annotations

from collections.abc import Mapping

from dripwell.content.render import Person

# As long as signed words are, so that sizes and URLs come out as they will be.
WORDS: Mapping[str, str] = {
    purpose: ("sample-" + purpose + "-" + "0" * 40)[:size]
    for purpose, size in {
        "click": 35,
        "view": 35,
        "unsubscribe": 35,
        "preferences": 40,
        "book": 35,
        "confirm": 40,
        "keep": 35,
        "call": 35,
    }.items()
}

EXTRA: Mapping[str, str] = {
    "call_day": "Tuesday, November 3",
    "call_time": "2:30 PM",
    "call_zone": "Pacific",
    "phone": "(555) 010-0199",
    "voicemail_line": "No voicemail will be left, as you asked.",
    "topic_title": "Seven-part series",
    "topic_about": "Seven short emails over two weeks.",
}


def _person(first_name: str, **fields: str) -> Person:
    return Person({"first_name": first_name, "state": "CA", **fields}, WORDS, EXTRA, "October 22, 2026")


SAMPLES: Mapping[str, Person] = {
    "ordinary": _person("Maria"),
    "no-name": _person("", state=""),
    "long": _person("Wolfeschlegelsteinhausenbergerdorff-" * 2 + "Bartholomäus"),
    "right-to-left": _person("عبد الرحمن"),
    "hostile": _person("*_<b>&\"'{{7*7}}</td>--><script>x</script>"),
}
"""By the name that `dripwell test --as sample:…` takes."""
