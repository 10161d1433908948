"""Rules about words: what an email of a clinic may claim, and how it says it. Pure: text in, findings out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

DRUGS = ("ketamine", "esketamine", "spravato", "ketalar", "racemic")
TREATMENTS = (
    *DRUGS, "infusion", "infusions", "antidepressant", "antidepressants", "psychedelic", "psychedelics", "opioid",
    "opioids", "therapy", "psychotherapy", "treatment", "treatments", "medication", "medications", "drug", "drugs",
    "prescription", "rehab", "detox", "anesthetic", "benzodiazepine", "ssri", "psilocybin", "mdma", "methadone",
    "suboxone",
)  # fmt: skip
CONDITIONS = (
    "depression", "depressed", "depressive", "anxiety", "anxious", "ptsd", "trauma", "traumatic", "bipolar", "ocd",
    "adhd", "suicide", "suicidal", "self-harm", "addiction", "addicted", "alcoholism", "alcoholic", "panic attack",
    "panic attacks", "pain", "crps", "fibromyalgia", "migraine", "migraines", "neuropathy", "insomnia",
    "psychiatric", "psychosis", "schizophrenia", "mental health", "mental illness", "disorder", "disorders",
    "diagnosis", "symptom", "symptoms", "cancer", "hiv", "hepatitis", "anorexia", "bulimia", "postpartum",
    "dementia", "epilepsy",
)  # fmt: skip


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.I)


# What, why, and whether "not …" in front changes nothing.
_BANNED = (
    (_any(r"non[- ]?addictive", r"not addictive", r"isn[’']t addictive", r"no risk of addiction"),
     "says it is not addictive", True),
    (_any(r"\bcur(?:e|es|ed|ing)\b"), "promises a cure", False),
    (_any(r"\bguarantee[sd]?\b"), "guarantees something", False),
    (_any(r"\bmiracle\b", r"\bmiraculous\b"), "promises a miracle", False),
    (_any(r"\bproven\b", r"\bproves\b"), "says it is proven", False),
    (_any(r"\bpermanent(?:ly)?\b"), "promises something permanent", False),
    (_any(r"\bworks? for (?:everyone|everybody|all)\b"), "says it works for everyone", False),
    (_any(r"\bno (?:known |lasting |serious |long-term )*side effects?\b", r"\bwithout side effects?\b",
          r"\bside[- ]effect[- ]free\b"), "denies side effects", True),
    (_any(r"\b(?:is|are|it[’']s|was|be|being|completely|totally|perfectly|very|entirely|remarkably) safe\b",
          r"\bsafe and effective\b", r"\brisk[- ]free\b", r"\bharmless\b"),
     "calls it safe without saying for whom", False),
    (_any(r"\bpainless\b"), "says it is painless", False),
)  # fmt: skip
_NEGATION = re.compile(
    r"\b(?:not|never|no|nobody|cannot|can[’']t|isn[’']t|aren[’']t|doesn[’']t|don[’']t|won[’']t|hasn[’']t|without|nor|neither|"
    r"nothing|no one)\b[^.;:!?]{0,60}$",
    re.I,
)
_CLAIM = re.compile(
    r"\d+(?:\.\d+)?\s?(?:%|percent\b)|\b(?:most|more|as) effective\b|\bfew options are\b|"
    r"\btreats?\b(?=[^.]{0,40}\b(?:depression|anxiety|ptsd|pain|addiction|disorder))|"
    r"\b(?:studies|research|trials?|evidence) (?:show|shows|suggests?|prove|found|finds|confirms?)\b|\bclinically\b|"
    r"\brelieves?\b|\breduces? (?:symptoms|pain|depression|anxiety)\b|\b\d+ (?:out of|in) \d+\b|\bfirst new option\b|"
    r"\bour clinic (?:reports|describes|sees|says)\b|\bthe clinic (?:reports|describes|sees|says)\b",
    re.I,
)
_BENEFIT = re.compile(
    r"\b(?:relief|improve(?:s|d|ment)?|heal(?:s|ing)?|recover(?:s|y)?|better mood|lift(?:s|ed)? mood|effective)\b", re.I
)
_FREE = _any(
    r"\bfree\b(?=\s+(?:\d|(?:tele)?phone|call|consultation|conversation|talk|of charge|of cost|fifteen|first))",
    r"\b(?:it|call|consultation|that|this|conversation) (?:is|[’']s) free\b",
    r"\bfor free\b",
    r"\bat no cost\b",
    r"\bcosts nothing\b",
)
_URGENCY = _any(
    r"\blast chance\b",
    r"\bdon[’']t miss\b",
    r"\bhurry\b",
    r"\bact now\b",
    r"\blimited (?:time|offer|spots?|places?)\b",
    r"\bonly \d+ (?:left|spots?|places?|slots?)\b",
    r"\b\d+ (?:spots?|slots?|places?) left\b",
    r"\bbefore it[’']s too late\b",
    r"\bends (?:today|tonight|soon)\b",
    r"\boffer expires\b",
    r"\btoday only\b",
    r"\burgent\b",
)
_QUOTED = re.compile(r"[“\"]\s*(?:I|My|After|Since|For me)\b[^”\"]{20,}[”\"]")
_TYPICAL = re.compile(r"\btypical|\bvar(?:y|ies)\b|\bmost people\b|\bresults differ\b", re.I)
_APPROVED = re.compile(r"\bFDA[- ]approved\b|\bapproved by the FDA\b|\bFDA approval\b|\bFDA has approved\b", re.I)
_SPAM_ERROR = (
    (_any(r"\bno\s+(?:\w+\s+)?prescription\b.{0,60}?\b(?:need|requir|necessar)\w*"), "NO_PRESCRIPTION"),
    (_any(r"\bonline\s+(?:pharmac\w+|drug\w*)", r"\b(?:pharmac\w+|drugs?|medications?|meds)\s+online\b"),
     "ONLINE_PHARMACY"),
    (_any(r"\b(?:phentermine|adipex)\b"), "DRUGS_DIET"),
    (_any(r"\b(?:viagra|cialis|levitra|sildenafil|tadalafil)\b"), "DRUGS_ERECTILE"),
)  # fmt: skip
_SPAM_WARNING = (
    (re.compile(r"\b(?:xanax|valium|ativan|lorazepam|klonopin|diazepam|alprazolam)\b", re.I), "DRUGS_ANXIETY"),
    (re.compile(r"\bfree\b.{0,60}\b(?:instant|online|no.obligation)\b.{0,40}\bquote", re.I), "FREE_QUOTE_INSTANT"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a rule found: which characters, what is wrong, what to do."""

    code: str
    level: str
    start: int
    end: int
    text: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters from `start` to `end`."""

    start: int
    end: int


def named(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of these words or phrases, whole."""
    ordered = sorted({word.lower() for word in words if word.strip()}, key=len, reverse=True)
    return re.compile(r"(?<![\w-])(?:" + "|".join(re.escape(word) for word in ordered) + r")(?![\w-])", re.I)


def sensitive(extra: Sequence[str] = ()) -> re.Pattern[str]:
    """Matches treatments and conditions, and an installation's own words."""
    return named((*TREATMENTS, *CONDITIONS, *extra))


def paragraphs(text: str) -> Iterator[Span]:
    """Stretches between empty lines, list entries apart, block fences and headings left out."""
    start: int | None = None
    offset = 0
    for line in [*text.split("\n"), ""]:
        fence = line.lstrip().startswith(":::")
        entry = bool(re.match(r"\s*(?:[-*+]|\d+[.)])\s", line)) or line.startswith("#")
        if start is not None and (not line.strip() or fence or entry):
            yield Span(start, offset - 1)
            start = None
        if line.strip() and not fence and start is None:
            start = offset
        offset += len(line) + 1


def sections(text: str) -> list[Span]:
    """Stretches from one heading to the next; `::: risks` and its like stand inside them."""
    marks = [m.start() for m in re.finditer(r"^#{1,3}\s", text, re.M)]
    edges = sorted({0, *marks, len(text)})
    return [Span(a, z) for a, z in itertools.pairwise(edges)]


def block_at(text: str, offset: int) -> Span:
    """The `:::` block around an offset, or the paragraph's section when it stands in none."""
    for found in re.finditer(r"^:::+\s*[a-z][^\n]*\n.*?^:::+\s*$", text, re.M | re.S):
        if found.start() <= offset < found.end():
            return Span(found.start(), found.end())
    return next((span for span in paragraphs(text) if span.start <= offset < span.end), Span(0, len(text)))


def sentences(text: str, span: Span) -> Iterator[Span]:
    """The sentences of a stretch."""
    start = span.start
    for end in re.finditer(r"[.!?][”\"')\]]*(?:\[\^[\w-]+\])*(?=\s|$|\*)", text[span.start : span.end]):
        yield Span(start, span.start + end.end())
        start = span.start + end.end()
    if text[start : span.end].strip():
        yield Span(start, span.end)


def claims_made(text: str, known: frozenset[str], answered: Sequence[str]) -> Iterator[Finding]:
    """D305, D306, D307, D309: what is claimed, and whether it may be. `answered`: sentences the register quotes."""
    quoted = {_normal(one) for one in answered}
    for paragraph in paragraphs(text):
        for span in sentences(text, paragraph):
            said = text[span.start : span.end]
            if _normal(said) in quoted:
                continue
            yield from _banned(said, span.start)
            yield from _approved(said, span.start)
    for section in sections(text):
        marks = set(re.findall(r"\[\^([\w-]+)\]", text[section.start : section.end]))
        if marks & known:
            continue
        for found in _CLAIM.finditer(text, section.start, section.end):
            yield Finding(
                "D307",
                "error",
                found.start(),
                found.end(),
                "this is a claim without a source",
                "add [^name] behind it and enter it in claims.yaml, with source and reviewer",
            )
            break
    for found in _QUOTED.finditer(text):
        block = block_at(text, found.start())
        if not _TYPICAL.search(text[block.start : block.end]):
            yield Finding(
                "D309",
                "error",
                found.start(),
                min(found.end(), found.start() + 40),
                "this is a testimonial without what is typical beside it",
                "say in the same place what most people find, or leave it out",
            )


def promised(line: str) -> Iterator[Finding]:
    """D305 and D306 in one line, a subject or a preheader: no register answers it there."""
    yield from _banned(line, 0)
    yield from _approved(line, 0)


def _banned(said: str, offset: int) -> Iterator[Finding]:
    if said.rstrip().rstrip("*_”\"'").endswith("?"):
        return  # a question claims nothing: "When is it safe to drive?"
    for pattern, what, always in _BANNED:
        for found in pattern.finditer(said):
            if always or not _NEGATION.search(said[: found.start()]):
                yield Finding(
                    "D305",
                    "error",
                    offset + found.start(),
                    offset + found.end(),
                    f"this {what}",
                    "say what some people report, or what is being studied",
                )


def _approved(said: str, offset: int) -> Iterator[Finding]:
    found = _APPROVED.search(said)
    if found is None or not re.search(r"(?<!es)ketamine", said, re.I) or re.search(r"anesthe", said, re.I):
        return
    if not _NEGATION.search(said[: found.end()]) and not re.search(r"\bnot\b|n[’']t\b", found[0]):
        yield Finding(
            "D306",
            "error",
            offset + found.start(),
            offset + found.end(),
            "ketamine is approved as an anesthetic only",
            "say “approved as an anesthetic”, and that this use is off-label",
        )


def free_without_conditions(text: str) -> Iterator[Finding]:
    """D308: “free” says in the same block how long, that it is no treatment, and that nothing must be decided."""
    seen: set[int] = set()
    for found in _FREE.finditer(text):
        block = block_at(text, found.start())
        if block.start in seen:
            continue
        said = text[block.start : block.end]
        missing = []
        if not re.search(r"\bminutes?\b|\{\{\s*call_length\s*\}\}", said, re.I):
            missing.append("how long it takes")
        if not re.search(r"\bnot (?:a |an )?(?:medical )?(?:treatment|diagnosis|advice)", said, re.I):
            missing.append("that it is not a treatment")
        if not re.search(r"(?:\bno|\bnothing|\bnot|n[’']t)\b[^.]{0,40}\bdeci[ds]|\bno obligation", said, re.I):
            missing.append("that nothing must be decided")
        if missing:
            seen.add(block.start)
            yield Finding(
                "D308",
                "error",
                found.start(),
                found.end(),
                f"“free” does not say here {', '.join(missing)}",
                "conditions of something free stand in the same block",
            )


def pressing(text: str) -> Iterator[Finding]:
    """D316: urgency and scarcity."""
    for found in _URGENCY.finditer(text):
        yield Finding(
            "D316", "warning", found.start(), found.end(), "this presses people", "say it calmly, or not at all"
        )


def spam_phrases(text: str) -> Iterator[Finding]:
    """D506, D507: phrases that SpamAssassin scores."""
    for pattern, rule in _SPAM_ERROR:
        for found in pattern.finditer(text):
            yield Finding(
                "D506",
                "error",
                found.start(),
                found.end(),
                f"mail filters score this phrase ({rule})",
                "say it another way",
            )
    for pattern, rule in _SPAM_WARNING:
        for found in pattern.finditer(text):
            yield Finding(
                "D507",
                "warning",
                found.start(),
                found.end(),
                f"mail filters score this phrase ({rule})",
                "say “consultation”, or leave the name out",
            )


def needs_risks(text: str) -> Span | None:
    """Where an email first names the drug or a benefit, so that risks must stand in it (D303)."""
    for pattern in (named(DRUGS), _BENEFIT):
        found = pattern.search(text)
        if found:
            return Span(found.start(), found.end())
    return None


def grade(text: str) -> float:
    """Flesch-Kincaid grade of plain words: about the years of school a reader needs."""
    said = [s for s in re.split(r"[.!?:]+(?:\s|$)|\n\s*\n", text) if re.search(r"\w", s)]
    words = re.findall(r"[A-Za-z][A-Za-z’']*", text)
    if not words or not said:
        return 0.0
    return 0.39 * len(words) / len(said) + 11.8 * sum(map(_syllables, words)) / len(words) - 15.59


def _syllables(word: str) -> int:
    lower = re.sub(r"[^a-z]", "", word.lower())
    count = len(re.findall(r"[aeiouy]+", lower))
    if lower.endswith("e") and not lower.endswith("le") and count > 1:
        count -= 1
    if lower.endswith(("ed", "es")) and count > 1 and not re.search(r"(?:[td]ed|[sxz]es|ches|shes)$", lower):
        count -= 1
    return max(count, 1)


def _normal(words: str) -> str:
    words = re.sub(r"\[\^[\w-]+\]|[*_]", "", words)
    return re.sub(r"\s+", " ", words).strip(' .!?“”"').lower()
