"""Everything around an email's body: masthead, the line that says which part this is, notes, identity and footer.

One frame is made per step; the theme writes it as HTML and `text_frame` as text, so both parts say the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from dripwell.content import blocks as b
from dripwell.content import text, theme
from dripwell.content.email_source import part_of
from dripwell.content.markdown import read_line
from dripwell.content.slots import Marks
from dripwell.core.campaign import Campaign, Site
from dripwell.core.errors import ContentError

WORDS_PER_MINUTE = 200
ADDRESSES = re.compile(r"(?:https?://|mailto:)\S+")


def frame_of(
    site: Site,
    campaign: Campaign,
    key: str,
    service: bool,
    tokens: theme.Tokens,
    title: b.Line,
    lines: tuple[str, str],
    marks: Marks,
) -> theme.Frame:
    """Everything around the body. `lines`: subject and preheader, with their marks."""
    clinic, words = site.clinic, tokens.words
    host = urlsplit(clinic.website).hostname or clinic.website
    if clinic.safety_note not in tokens.safety:
        raise ContentError(f"{theme.TOKENS}: there is no safety line `{clinic.safety_note}` (D304)")
    safety = _theme_line(tokens.safety[clinic.safety_note], {})
    privacy = _link(words["privacy"], "privacy_url", marks)
    identity = [(b.Text(clinic.legal_name),), (b.Text(clinic.postal_address),), (_telephone(clinic.phone),)]
    facts = {"host": host, "short_name": clinic.short_name}
    subject, preheader = lines
    if service:
        reason = _theme_line(words[f"reason_{campaign.name}"], facts)
        notes: tuple[b.Line, ...] = (safety, reason) if campaign.name != "notice" else (reason,)
        return theme.Frame(
            subject=subject,
            preheader=preheader,
            language=clinic.language,
            short_name=clinic.short_name,
            title=title,
            notes=notes,
            identity=tuple(identity),
            footer=(privacy,),
        )
    number, of = part_of(campaign, key) if campaign.straight else (1, 1)
    topic = site.topic(campaign.topic)
    date = marks.word("p", "reason_date")
    marks.personal[date] = "reason_date"
    facts |= {"of": str(of), "date": date, "topic": topic.title if topic else campaign.title}
    reason = _theme_line(words["reason_series" if of > 1 else "reason_one"], facts)
    leave = _link(words["leave"], "unsubscribe_url", marks)
    return theme.Frame(
        subject=subject,
        preheader=preheader,
        language=clinic.language,
        short_name=clinic.short_name,
        # The way out stands near the top too: where a long email is cut off, its foot is not seen (rules 6.1).
        masthead=(_link(words["view"], "view_url", marks), leave),
        part=(number, of) if of > 1 else None,
        title=title,
        controls=words["controls"],
        control_links=tuple(_link(words[name], f"{name}_url", marks) for name in ("pause", "fewer", "stop")),
        notes=(_theme_line(words["off_label"], facts), safety, reason),
        identity=tuple(identity),
        footer=(leave, _link(words["preferences"], "preferences_url", marks), privacy),
    )


def with_length(
    frame: theme.Frame, site: Site, tokens: theme.Tokens, campaign: Campaign, key: str, body: list[str], size: int
) -> theme.Frame:
    """Add the line that says which part this is and how long it takes, and the picture if the words carry it (D407)."""
    if frame.part is None:
        return frame
    number, of = frame.part
    words = len(re.findall(r"\w[\w’'-]*", ADDRESSES.sub(" ", "\n".join(body))))
    minutes = max(1, math.ceil(words / WORDS_PER_MINUTE))
    said = {"n": str(number), "of": str(of), "minutes": str(minutes)}
    line = f"{_put(tokens.words['part'], said)} · {_put(tokens.words['minutes'], said)}"
    art = f"{site.base_url.rstrip('/')}/art/shore-{(number - 1) % theme.ART + 1}.jpg" if size >= theme.ART_BYTES else ""
    return replace(frame, part_line=line, art=art)


def text_frame(frame: theme.Frame, writer: text.Writer) -> tuple[list[str], list[str]]:
    """What stands above and below the body in the text part: the same words and links as in the HTML."""
    above = [frame.short_name, *(writer.link(link) for link in frame.masthead), frame.part_line]
    above.append(writer.heading(frame.title, "="))
    below = ["-" * text.WRAP]
    if frame.controls:
        below += [text.wrap(frame.controls), *(writer.link(link) for link in frame.control_links), "-" * text.WRAP]
    below += [writer.paragraph(note) for note in frame.notes]
    below.append("\n".join(writer.paragraph(line) for line in frame.identity))
    below += [writer.link(link) for link in frame.footer]
    return above, below


def _link(words: str, name: str, marks: Marks) -> b.Link:
    word = marks.word("u", name)
    marks.urls[word] = name
    return b.Link((b.Text(words),), word)


def _telephone(phone: str) -> b.Inline:
    digits = re.sub(r"[^\d+]", "", phone)
    if not digits:
        return b.Text(phone)
    return b.Link((b.Text(phone),), f"tel:+1{digits}" if len(digits) == 10 else f"tel:{digits}")


def _put(words: str, facts: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: facts.get(m[1], m[0]), words)


def _theme_line(words: str, facts: Mapping[str, str]) -> b.Line:
    """The theme's own words: Markdown links first, then {names}, so a clinic's name is never read as Markdown."""

    def filled(line: Iterable[b.Inline]) -> b.Line:
        out: list[b.Inline] = []
        for part in line:
            match part:
                case b.Text(text=words):
                    out.append(b.Text(_put(words, facts)))
                case b.Link(of=inner, target=target):
                    out.append(b.Link(filled(inner), target))
                case b.Strong(of=inner):
                    out.append(b.Strong(filled(inner)))
                case b.Emphasis(of=inner):
                    out.append(b.Emphasis(filled(inner)))
                case b.Break():
                    out.append(part)
        return tuple(out)

    return filled(read_line(words))
