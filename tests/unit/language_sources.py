"""A small valid installation to break, and the ways of breaking it that the golden files show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
BASE = DATA / "language"
GOLDEN = DATA / "golden"
CAMPAIGN = "campaigns/welcome/campaign.yaml"
SITE = "config/site.yaml"
SEGMENTS = "config/segments.yaml"
CLAIMS = "campaigns/welcome/claims.yaml"


def valid_sources() -> dict[str, str]:
    """Return the sources of an installation in which every key of the language is used."""
    return {
        path.relative_to(BASE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(BASE.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Case:
    """One way to get a file wrong: replace `old` (which stands there once) by `new`, or the whole file if empty.

    `seen` says whether a schema can see the fault: it knows shapes, not names of other things or what steps add up to.
    """

    path: str
    old: str
    new: str
    seen: bool = True
    before: tuple[str, str, str] | None = None  # path, old, new: what another file says meanwhile

    def sources(self) -> dict[str, str]:
        """Return the valid sources with this fault in them."""
        sources = valid_sources()
        text = sources[self.path]
        if self.old:
            assert text.count(self.old) == 1, f"{self.old!r} stands {text.count(self.old)} times in {self.path}"
        sources[self.path] = text.replace(self.old, self.new) if self.old else self.new
        if self.before is not None:
            path, old, new = self.before
            assert sources[path].count(old) == 1
            sources[path] = sources[path].replace(old, new)
        return sources


def chain(length: int) -> str:
    """Return segments of which each names the next."""
    links = [f"s{n}: {{about: One of many., when: {{segment: s{n + 1}}}}}" for n in range(1, length)]
    return "\n".join(["staff: {about: x, when: {tag: staff}}", "nearby: {about: x, when: {tag: x}}", *links]) + (
        f"\ns{length}: {{about: The last., when: {{tag: staff}}}}\n"
    )


def doubling(length: int) -> str:
    """Return segments of which each asks the next three times: few lines, many questions."""
    links = [
        f"s{n}: {{about: x, when: {{any: [{{segment: s{n + 1}}}, {{segment: s{n + 1}}}, {{segment: s{n + 1}}}]}}}}"
        for n in range(1, length)
    ]
    return "\n".join(["staff: {about: x, when: {tag: staff}}", "nearby: {about: x, when: {tag: x}}", *links]) + (
        f"\ns{length}: {{about: The last., when: {{tag: staff}}}}\n"
    )


STEPS = "  - wait: 1 hour\n"
UNSEEN = False

CASES: dict[str, Case] = {
    # keys
    "misspelt-key": Case(CAMPAIGN, "topic: guides", "topik: guides"),
    "unknown-key": Case(CAMPAIGN, "topic: guides", "topic: guides\ncolor: green"),
    "unknown-key-in-a-step": Case(CAMPAIGN, "    key: more\n", "    ky: more\n"),
    "missing-key": Case(CAMPAIGN, "topic: guides\n", ""),
    "missing-subject": Case(CAMPAIGN, "    subject: How a mind makes room for change\n", ""),
    "missing-title-of-topic": Case(SITE, "    title: Guides\n", ""),
    "key-without-value": Case(CAMPAIGN, "topic: guides", "topic:"),
    "list-item-without-value": Case(CAMPAIGN, "  - tag: current-patient\n  - event", "  -\n  - event"),
    "duplicate-key": Case(CAMPAIGN, "topic: guides", "topic: guides\ntopic: notes", UNSEEN),
    "key-of-another-step": Case(CAMPAIGN, "  - wait: 2 days\n", "  - wait: 2 days\n    subject: Wait for it\n"),
    "two-things-in-one-step": Case(CAMPAIGN, "  - wait: 2 days\n  - email: 2", "  - wait: 2 days\n    email: 2"),
    "step-of-no-kind": Case(CAMPAIGN, "  - wait: 2 days\n", "  - key: pause-here\n"),
    "field-without-is": Case(SEGMENTS, "        is: [CA, NV]\n", ""),
    "several-faults-in-file-order": Case(
        CAMPAIGN,
        "limits:\n  emails: 2 per week\n  gap: 1 day\ngoal:\n  event: consultation.booked\n  within: 30 days",
        "limits:\n  emails: two a week\n  gap: 1 dya\ngoal:\n  evnt: consultation.booked\n  within: 30",
    ),
    # words of other systems
    "peer-delay": Case(CAMPAIGN, "  - wait: 2 days", "  - delay: 2 dyas"),
    "peer-entry": Case(CAMPAIGN, "trigger:", "entry:"),
    "peer-on": Case(CAMPAIGN, "trigger:", "on:"),
    "peer-preview-text": Case(CAMPAIGN, "    preheader:", "    preview_text:"),
    "peer-opened": Case(SEGMENTS, "when: {tag: staff}", "when: {opened: welcome/1-hello}"),
    "peer-list": Case(CAMPAIGN, "topic: guides", "list: guides"),
    "peer-quiet-hours": Case(CAMPAIGN, "send_window:\n", "quiet_hours:\n"),
    "peer-condition-step": Case(CAMPAIGN, "  - wait: 2 days\n", "  - if: {tag: staff}\n"),
    # values
    "bad-duration": Case(CAMPAIGN, "within: 30 days", "within: 30 dyas"),
    "duration-of-zero": Case(CAMPAIGN, "  - wait: 2 days", "  - wait: 0 days"),
    "duration-in-quotes": Case(CAMPAIGN, "  - wait: 2 days", '  - wait: "2 dayz"'),
    "duration-as-a-number": Case(CAMPAIGN, "  - wait: 2 days", "  - wait: 2"),
    "bad-window": Case(CAMPAIGN, "hours: 10:00-17:00", "hours: 9-17"),
    "window-past-midnight": Case(CAMPAIGN, "hours: 10:00-17:00", "hours: 22:00-06:00", UNSEEN),
    "bad-days": Case(CAMPAIGN, "days: [tue, wed, thu]", "days: workdays"),
    "bad-day-in-list": Case(CAMPAIGN, "days: [tue, wed, thu]", "days: [tue, wedn, thu]"),
    "bad-time-zone": Case(CAMPAIGN, "timezone: America/Los_Angeles", "timezone: Los Angeles", UNSEEN),
    "bad-limit": Case(CAMPAIGN, "emails: 2 per week", "emails: 2 a week"),
    "bad-choice": Case(CAMPAIGN, "then: continue", "then: continu"),
    "bad-address": Case(CAMPAIGN, "approval: reviewer@harbor.example", "approval: reviewer at harbor.example"),
    "bad-event": Case(CAMPAIGN, "event: consultation.booked", "event: Consultation booked"),
    "bad-version": Case(SITE, "version: 1", "version: 2"),
    "number-for-text": Case(CAMPAIGN, "name: Welcome", "name: 2026"),
    "list-for-text": Case(CAMPAIGN, "topic: guides", "topic: [guides, notes]"),
    "text-for-list": Case(
        CAMPAIGN,
        "suppress:\n  - tag: current-patient\n  - active_in: other-series\n  - emailed_within: 24 hours\n",
        "suppress: staff\n",
    ),
    "text-for-keys": Case(CAMPAIGN, "  any:\n    - form: guide-request\n", "  any:\n    - guide-request\n"),
    "text-for-truth": Case(SITE, "track_clicks: true", "track_clicks: yes"),
    "subject-too-long": Case(
        CAMPAIGN, "subject: Small repairs, and what they may add up to", f"subject: {'long ' * 20}"
    ),
    "subject-of-two-lines": Case(
        CAMPAIGN, "subject: Small repairs, and what they may add up to", 'subject: "One\\nTwo"'
    ),
    "step-key-with-spaces": Case(CAMPAIGN, "key: more", "key: Read More"),
    # names of other things
    "unknown-topic": Case(CAMPAIGN, "topic: guides", "topic: guide", UNSEEN),
    "unknown-segment": Case(CAMPAIGN, "- left_segment: nearby", "- left_segment: near-by", UNSEEN),
    "unknown-form": Case(CAMPAIGN, "form: guide-request", "form: 'guide-requests'", UNSEEN),
    "form-of-another-topic": Case(CAMPAIGN, "form: guide-request", "form: notes-request", UNSEEN),
    "missing-markdown": Case(CAMPAIGN, "email: 1-hello", "email: 1-helo", UNSEEN),
    "waits-for-itself": Case(CAMPAIGN, "active_in: other-series", "active_in: welcome", UNSEEN),
    "segments-in-a-circle": Case(SEGMENTS, "when: {tag: staff}", "when: {not: {segment: nearby}}", UNSEEN),
    # conditions
    "segment-in-itself": Case(SEGMENTS, "when: {tag: staff}", "when: {segment: staff}", UNSEEN),
    "segment-misspelt-in-a-condition": Case(SEGMENTS, "          segment: staff", "          segment: stuff", UNSEEN),
    "topic-misspelt-in-a-condition": Case(SEGMENTS, "          - topic: notes", "          - topic: note", UNSEEN),
    "field-misspelt": Case(SEGMENTS, "field: state", "field: stat", UNSEEN),
    "field-of-the-address": Case(SEGMENTS, "field: state", "field: email"),
    "field-compared-with-keys": Case(SEGMENTS, "is: [CA, NV]", "is: {a: b}"),
    "field-compared-with-nothing": Case(SEGMENTS, "is: [CA, NV]", "is: []"),
    "field-compared-with-a-huge-number": Case(SEGMENTS, "is: [CA, NV]", "is: 12345678901234567890", UNSEEN),
    "tag-as-a-list": Case(SEGMENTS, "when: {tag: staff}", "when: {tag: [staff, board]}"),
    "empty-all": Case(SEGMENTS, "when: {tag: staff}", "when: {all: []}"),
    "empty-any": Case(SEGMENTS, "when: {tag: staff}", "when: {any: []}"),
    "all-without-a-list": Case(SEGMENTS, "when: {tag: staff}", "when: {all: {tag: staff}}"),
    "not-with-a-list": Case(SEGMENTS, "when: {tag: staff}", "when: {not: [{tag: staff}]}"),
    "two-questions-in-one-condition": Case(SEGMENTS, "when: {tag: staff}", "when: {tag: staff, topic: notes}"),
    "question-of-no-kind": Case(SEGMENTS, "when: {tag: staff}", "when: {within: 3 days}"),
    "within-beside-a-tag": Case(SEGMENTS, "when: {tag: staff}", "when: {tag: staff, within: 3 days}"),
    "joined-without-within": Case(SEGMENTS, "when: {tag: staff}", "when: {joined: true}"),
    "joined-as-a-time": Case(SEGMENTS, "when: {tag: staff}", "when: {joined: 30 days, within: 30 days}"),
    "event-misspelt": Case(SEGMENTS, "when: {tag: staff}", "when: {event: consultation.boked}", UNSEEN),
    "event-of-a-trigger-misspelt": Case(CAMPAIGN, "event: guide.requested", "event: guide.requestd", UNSEEN),
    "event-of-a-goal-not-declared": Case(CAMPAIGN, "event: consultation.booked", "event: form.sent", UNSEEN),
    "within-misspelt": Case(SEGMENTS, "when: {tag: staff}", "when: {event: consultation.booked, within: 3 dyas}"),
    "clicked-without-campaign": Case(SEGMENTS, "when: {tag: staff}", "when: {clicked: more}", UNSEEN),
    "clicked-in-no-campaign": Case(SEGMENTS, "when: {tag: staff}", "when: {clicked: welcom/*}", UNSEEN),
    "clicked-in-no-email-of-its-own": Case(
        CAMPAIGN, "topic: guides\n", "topic: guides\naudience: {not: {clicked: mor}}\n", UNSEEN
    ),
    "clicked-with-a-star-inside": Case(SEGMENTS, "when: {tag: staff}", "when: {clicked: welcome/1-*}"),
    "clicked-while-nobody-counts": Case(
        SEGMENTS,
        "when: {tag: staff}",
        "when: {clicked: welcome/*}",
        UNSEEN,
        (SITE, "track_clicks: true", "track_clicks: false"),
    ),
    "segments-nested-too-deep": Case(SEGMENTS, "", chain(13), UNSEEN),
    "segments-that-ask-too-much": Case(SEGMENTS, "", doubling(8), UNSEEN),
    "condition-nested-too-deep": Case(
        SEGMENTS, "when: {tag: staff}", f"when: {'{not: ' * 19}{{tag: staff}}{'}' * 19}", UNSEEN
    ),
    "clicked-by-scanners": Case(SEGMENTS, "when: {tag: staff}", "when: {not: {clicked: welcome/*}}", UNSEEN),
    "audience-of-no-segment": Case(
        CAMPAIGN, "topic: guides\n", "topic: guides\naudience: {segment: nearbye}\n", UNSEEN
    ),
    "audience-as-a-name": Case(CAMPAIGN, "topic: guides\n", "topic: guides\naudience: nearby\n"),
    "event-declared-though-ours": Case(SITE, "events:\n", "events:\n  consultation.booked: Booked.\n", UNSEEN),
    "field-declared-as-the-address": Case(SITE, "  city: Where", "  email: Where"),
    "event-without-words": Case(SITE, "  left.town: They told the front desk that they moved away.", "  left.town:"),
    # steps
    "repeated-step-key": Case(CAMPAIGN, "    key: more", "    key: 1-hello", UNSEEN),
    "repeated-email": Case(CAMPAIGN, "email: 2-more\n    key: more\n", "email: 1-hello\n", UNSEEN),
    "two-waits-in-a-row": Case(CAMPAIGN, "  - wait: 2 days\n", "  - wait: 2 days\n  - wait: 3 hours\n", UNSEEN),
    "wait-at-the-end": Case(
        CAMPAIGN,
        "  - tag: finished\n",
        "  - tag: finished\n  - wait: 3 days\n",
        UNSEEN,
    ),
    "no-steps": Case(CAMPAIGN, "", "type: drip\nname: Welcome\ntopic: guides\ntrigger: {manual: true}\nsteps: []\n"),
    "no-email": Case(
        CAMPAIGN,
        "",
        "type: drip\nname: Welcome\ntopic: guides\ntrigger: {manual: true}\nsteps:\n  - wait: 2 days\n",
        UNSEEN,
    ),
    "wait-shorter-than-the-gap": Case(CAMPAIGN, "  - wait: 2 days\n", "  - wait: 3 hours\n", UNSEEN),
    "no-wait-between-emails": Case(CAMPAIGN, "  - wait: 2 days\n", "", UNSEEN),
    "more-emails-than-the-limit": Case(
        CAMPAIGN, "    key: more\n", "    subject: Two\n  - wait: 2 days\n  - email: 2-more\n    key: more\n", UNSEEN
    ),
    # branches, and waits for something
    "branch-without-a-question": Case(CAMPAIGN, "      when: {event: consultation.canceled, within: 20 days}\n", ""),
    "branch-with-an-unknown-key": Case(CAMPAIGN, "      then:\n", "      than:\n"),
    "peer-yes": Case(CAMPAIGN, "      then:\n", "      yes:\n"),
    "branch-that-leads-nowhere": Case(
        CAMPAIGN,
        "  - wait: 2 days\n",
        "  - branch: {name: Nowhere?, when: {tag: staff}, then: []}\n  - wait: 2 days\n",
        UNSEEN,
    ),
    "two-branches-of-one-name": Case(
        CAMPAIGN,
        "  - wait: 2 days\n",
        "  - wait: 2 days\n  - branch: {name: asked again, when: {tag: staff}, then: [{tag: a}]}\n",
        UNSEEN,
    ),
    "one-key-in-two-arms": Case(
        CAMPAIGN,
        "          subject: What to bring, and what to leave at home\n",
        "          subject: What to bring, and what to leave at home\n          key: 3-then\n",
        UNSEEN,
    ),
    "wait-at-the-end-of-a-branch-at-the-end": Case(
        CAMPAIGN,
        "  - wait: {until: tuesday 10:00}\n  - tag: finished\n",
        "  - branch: {name: Last?, when: {tag: staff}, then: [{tag: a}, {wait: 2 days}]}\n",
        UNSEEN,
    ),
    "wait-for-a-condition-for-ever": Case(CAMPAIGN, "      at_most: 4 days\n", ""),
    "wait-until-a-short-day": Case(CAMPAIGN, "until: tuesday 10:00", "until: Tue 10"),
    "wait-until-no-day-of-the-calendar": Case(CAMPAIGN, "2026-12-03 09:30", "2026-02-30 09:30", UNSEEN),
    "wait-until-nobody-knows-when": Case(CAMPAIGN, "until: tuesday 10:00", "until: the weather is better"),
    "wait-beside-an-unknown-field": Case(CAMPAIGN, "before visit", "before vist", UNSEEN),
    "wait-until-with-at-most": Case(CAMPAIGN, "{until: tuesday 10:00}", "{until: tuesday 10:00, at_most: 2 days}"),
    "tag-that-cannot-be": Case(CAMPAIGN, "  - tag: finished\n", "  - tag: all done\n"),
    "subject-beside-a-tag": Case(CAMPAIGN, "  - tag: finished\n", "  - tag: finished\n    subject: Done\n"),
    # not built yet
    "later-owner-and-holdout": Case(
        CAMPAIGN, "topic: guides\n", "topic: guides\nowner: jo@harbor.example\nholdout: 10%\n"
    ),
    "later-subject-test": Case(
        CAMPAIGN,
        "subject: Small repairs, and what they may add up to",
        "subject:\n      test: [One, Two]\n      winner: {by: clicks, after: 400 accepted}",
    ),
    "later-newsletter": Case(CAMPAIGN, "type: drip", "type: newsletter"),
    "later-site-keys": Case(
        SITE,
        "privacy:\n  track_opens: false\n",
        "settled: {}\nprivacy:\n  track_opens: true\n",
    ),
    "later-avoid": Case(SITE, "  timezone: subscriber\n", "  timezone: subscriber\n  avoid: [us-holidays]\n"),
    # the site
    "warm-up-of-no-kind": Case(SITE, "preset: ghost-42", "preset: ghost"),
    "warm-up-without-a-day": Case(SITE, "  first_day: 2026-10-06\n", ""),
    "bad-pace": Case(SITE, "gmail: 3000 per hour", "gmail: 3000/h"),
    "pace-of-no-group": Case(SITE, "gmail: 3000 per hour", "gmial: 3000 per hour"),
    "bad-on-unknown": Case(SITE, "on_unknown: resend", "on_unknown: retry"),
    "noreply-sender": Case(SITE, "from: Harbor <hello@", "from: Harbor <no-reply@", UNSEEN),
    "same-sender-twice": Case(SITE, "calls@notice.harbor.example", "HELLO@mail.harbor.example", UNSEEN),
    "sender-without-name": Case(SITE, "from: Harbor <hello@mail.harbor.example>", "from: hello@mail.harbor.example"),
    "base-url-not-https": Case(SITE, "base_url: https://mail", "base_url: http://mail", UNSEEN),
    "form-that-asks-no-address": Case(SITE, "{email: required, first", "{email: optional, first", UNSEEN),
    "call-hours-twice": Case(SITE, "sat: 09:00-12:00", "fri: 09:00-12:00", UNSEEN),
    "call-hours-misspelt": Case(SITE, "sat: 09:00-12:00", "saturday: 09:00-12:00"),
    "claim-without-reviewer": Case(CLAIMS, "  reviewed: {by: Dr. Example, date: 2026-10-01}\n", "", UNSEEN),
    "claim-with-a-wrong-date": Case(CLAIMS, "2026-10-01", "10/01/2026", UNSEEN),
    # YAML
    "braces-without-quotes": Case(
        CAMPAIGN, "subject: Small repairs, and what", 'subject: {{ first_name or "You" }}, what', UNSEEN
    ),
    "tab": Case(CAMPAIGN, "  emails: 2 per week", "\temails: 2 per week", UNSEEN),
    "colon-in-a-value": Case(CAMPAIGN, "subject: Small repairs, and", "subject: Part 2: repairs and", UNSEEN),
    "quote-never-closed": Case(CAMPAIGN, "name: Welcome", 'name: "Welcome', UNSEEN),
    "list-never-closed": Case(CAMPAIGN, "[tue, wed, thu]", "[tue, wed, thu", UNSEEN),
    "wrong-indent": Case(CAMPAIGN, "    key: more\n", "   key: more\n", UNSEEN),
    "sign-that-needs-quotes": Case(CAMPAIGN, "name: Welcome", "name: @welcome", UNSEEN),
    "line-without-colon": Case(CAMPAIGN, "name: Welcome", "name", UNSEEN),
    "alias": Case(CAMPAIGN, "  - after: 60 days", "  - after: *day", UNSEEN),
    "merge-key": Case(CAMPAIGN, "  gap: 1 day\n", "  <<: {gap: 1 day}\n", UNSEEN),
    "tag": Case(CAMPAIGN, "name: Welcome", "name: !!python/name:os.system Welcome", UNSEEN),
    "nested-too-deep": Case(CAMPAIGN, "name: Welcome", f"name: {'[' * 25}{']' * 25}", UNSEEN),
    "empty-file": Case(CAMPAIGN, "", "# nothing here any more\n", UNSEEN),
    "not-utf8": Case(CAMPAIGN, "name: Welcome", "name: Welc\udcf6me", UNSEEN),
    "invisible-character": Case(CAMPAIGN, "name: Welcome", "name: Wel\x00come", UNSEEN),
    "second-document": Case(CAMPAIGN, "topic: guides\n", "topic: guides\n---\n", UNSEEN),
    "empty-markdown": Case("campaigns/welcome/2-more.md", "", "\n\n", UNSEEN),
}
