"""Fills substitution words. A template is cut once; filling a person's copy is then a join."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """A template cut at its words: `pieces` alternates literal, word's place, literal, …"""

    pieces: tuple[bytes, ...]
    words: tuple[str, ...]  # in order of appearance: the word that stands at pieces[1], pieces[3], …
    needed: frozenset[str]


def words_pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of these words, the longest first; None when there are none."""
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    return re.compile("(" + "|".join(re.escape(word) for word in ordered) + ")") if ordered else None


def cut(template: str, pattern: re.Pattern[str] | None) -> Cut:
    """Cut a template at every word the pattern finds."""
    parts = pattern.split(template) if pattern else [template]
    words = tuple(parts[1::2])
    return Cut(tuple(part.encode() for part in parts), words, frozenset(words))


def fill(template: Cut, values: Mapping[str, str]) -> bytes:
    """One person's copy. Values go in once and are not searched for words again. KeyError: a value is missing."""
    if not template.words:
        return template.pieces[0]
    pieces = list(template.pieces)
    pieces[1::2] = [values[word].encode() for word in template.words]
    return b"".join(pieces)
