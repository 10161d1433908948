"""What each lint code means, for `dripwell lint --explain CODE`. Codes are never used for something else."""

from __future__ import annotations

from collections.abc import Mapping

CATALOG: Mapping[str, str] = {
    "D101": (
        "The shape of a file is wrong: a key nobody knows, a missing one, a wrong type, a key twice, a length "
        "of time that is none, or a block without what it needs. Every key must change something, so an "
        "unknown key is never ignored. Lengths of time are one number and one unit: `2 days`."
    ),
    "D102": (
        "A word of another system: `delay`, `entry`, `preview_text`, `opened`. There is one way to say each "
        "thing here, and the message names it. `opened` has no twin: mail apps fetch pictures by themselves, "
        "so an open does not mean that a person read."
    ),
    "D103": (
        "A value starts with `{{` and is not quoted. YAML reads that as something else; put the whole value in quotes."
    ),
    "D104": (
        "A step's key is missing, stands twice, or was used by a step that has been removed. The rule that "
        "nobody gets an email twice hangs on the key, and so do all numbers. To rename a step use `dripwell "
        "rename`, which moves its history."
    ),
    "D105": (
        "A file that is too large (1 MB; 200 KB an email), nested too deeply, or uses YAML's merge keys or "
        "many anchors. These are how a small file makes a program run out of memory."
    ),
    "D106": (
        "Something that this version does not do yet. It is refused instead of ignored, so that a file never "
        "promises more."
    ),
    "D201": (
        "A name that leads nowhere: no such segment, topic, form, step, file or ::: block. The nearest name "
        "is suggested."
    ),
    "D202": (
        "Something between {{ and }} that cannot be filled: an unknown name, or a field that may be empty and "
        'has no fallback. Not everybody gives a first name, so write {{ first_name or "there" }}. Links such '
        "as booking_url stand in a link, [words]({{ booking_url }}), and not among the words. Only names, "
        "`or`, `… if … else …` and a few filters can be used; an email cannot run programs."
    ),
    "D203": (
        "The waits are shorter than the limits and the send window allow: emails will arrive later than the "
        "file says. Lengthen the waits, so that the file tells the truth."
    ),
    "D204": (
        "A condition or a test asks who clicked while `privacy.track_clicks` is false. Nothing would ever be "
        "true. Ask for something else, or turn click tracking on."
    ),
    "D205": (
        "The warm-up's first day is more than 90 days ahead. Until that day no campaign email goes out at all, so it "
        "is probably a year or a month mistyped. Service emails are never kept back."
    ),
    "D301": (
        "The subject or preheader names a treatment or a condition. Both show on a lock screen, to whoever is "
        "near. That a person gets mail from a clinic like this is health information in itself. Say it "
        "discreetly and name things inside the email. Add words of your own with `privacy.discreet_words`."
    ),
    "D302": (
        "A treatment or condition stands in the sender's name, the List-ID, a link's address, a picture's "
        "name or alt text. These pass through many servers and are stored for years. Name things by rhythm or "
        "by what they show."
    ),
    "D303": (
        "The email names the drug or a benefit without the risks beside it, or the theme's off-label line is "
        "gone. Add a `::: risks` block that says off-label and names the risks, in the size of the benefits "
        "and at their length."
    ),
    "D304": (
        "The safety line is missing: what to do in a crisis, in words that fit the country. The theme prints "
        "it in every email and `clinic.safety_note` chooses it; no template can leave it out."
    ),
    "D305": (
        "A claim nobody can keep: not addictive, safe (for whom?), cure, guaranteed, miracle, proven, "
        "permanent, works for everyone, no side effects. Say what some people report, or what is being "
        "studied. A sentence passes only when the claim register quotes and answers it. Saying that something "
        "is not guaranteed is fine."
    ),
    "D306": (
        "The sentence reads as if ketamine were FDA-approved for this use. It is approved as an anesthetic "
        "only; another medicine, esketamine, is approved for some depression. Never mix the two."
    ),
    "D307": (
        "A claim without a source: a share, “most effective”, “our clinic reports”, “studies show”, or a "
        "[^name] that claims.yaml does not hold. Put [^name] behind the claim, and enter it with source, "
        "reviewer and date. The mark is not printed."
    ),
    "D308": (
        "Something is called free and its conditions do not stand in the same block: how long it takes, that "
        "it is not a treatment, and that nothing must be decided. A footnote does not count."
    ),
    "D309": (
        "A testimonial without what is typical beside it. One person's words read as a promise; say in the "
        "same place what most people find, or leave them out."
    ),
    "D310": (
        "A form asks for a condition or diagnosis, or a segment is built on one. We do not store any, so that "
        "none can leak."
    ),
    "D311": (
        "The email reads above school grade 9. Shorter sentences and shorter words help everybody, most of "
        "all on a bad day."
    ),
    "D312": (
        "The subject is longer than 60 characters, is all capitals, or has an exclamation mark. 30 to 55 "
        "characters are read whole on a phone, and calm words are opened more calmly."
    ),
    "D313": (
        "The preheader is missing, repeats the subject, or is not 35 to 110 characters long. It is the second "
        "line people see; without one, mail programs show whatever comes first."
    ),
    "D314": (
        "Two emails of the series have the same subject. Mail programs put them into one thread and hide the second."
    ),
    "D315": "The email has a second button. One call to action is enough; turn the other into a link.",
    "D316": (
        "Urgency or scarcity: “last chance”, “don't miss”, “2 slots left”. It presses people who may be "
        "unwell. Say it calmly."
    ),
    "D317": (
        "A wait, branch or winner depends on clicks. Mail scanners follow every link, so a click may be a "
        "machine's. Numbers leave out what looks like one, and a decision about a person deserves better."
    ),
    "D401": (
        "The finished email is larger than 90 KB. Gmail cuts off at about 100 KB, and the way out at the foot is lost."
    ),
    "D402": "The finished email is larger than 60 KB. It still arrives whole; shorten it before it grows further.",
    "D403": (
        "The text part is missing, or its words or links differ from the HTML. Some people and many filters "
        "read it. Both are written from one source, so this points to the theme."
    ),
    "D404": 'A picture has no alt. Write alt="" when nothing is lost without it.',
    "D405": (
        "Two colors of the theme have a contrast below 4.5 in light, dark or forced dark mode. Mail programs "
        "that force dark mode turn the lightness of colors around, so both ways are computed."
    ),
    "D406": "The button is less than 44 px tall. Fingers and shaking hands need that much.",
    "D407": (
        "A picture with fewer than 3,200 bytes of words, or fewer than two sentences a picture. Mail filters "
        "take it for an advertisement. The theme leaves its own picture out of short emails."
    ),
    "D408": (
        "Words are hidden by color or style. Mailbox providers treat that as deceit; only the preheader is hidden."
    ),
    "D409": (
        "Something mail programs do not show or that loads from elsewhere: raw HTML, a form, a script, a web "
        "font, remote CSS, an embedded, SVG or WebP picture, a CSS variable, flex. Write Markdown and ::: "
        "blocks; looks belong to the theme."
    ),
    "D410": (
        "The email has more than three conditions on the person, a loop or {% set %} over a personal value, or "
        "more than 20 personal values. It is then rendered for each person apart: same words, more time, one "
        "message a call instead of up to 1,000. {{ … or … }}, {{ … if … else … }} and up to three {% if %} do "
        "not have that cost. `dripwell lint --verbose` says how each email goes out."
    ),
    "D501": "The postal address is missing from the email. The law asks for it in every one.",
    "D502": "The email has no unsubscribe link in its body, or it would need a login or a second page.",
    "D503": (
        "List-Unsubscribe would not work: the URL is not https, or longer than 75 characters. Mail libraries "
        "break longer ones and Gmail then ignores the header. Choose a short host for `links.base_url`."
    ),
    "D504": (
        "A sender or reply address that nobody reads, or campaigns and confirmations from one address. People "
        "answer emails, and somebody must read that."
    ),
    "D505": (
        "A link leads to a host that is not in `links.allow`, to a shortener, to a bare number or without "
        "https, or its words show another host than it leads to. Shared shorteners get mail refused."
    ),
    "D506": "A phrase that SpamAssassin scores highly, such as “no prescription needed”. Say it another way.",
    "D507": (
        "A phrase that SpamAssassin scores a little, such as the name of a sedative. Say “consultation”, or "
        "leave it out."
    ),
    "D508": (
        "The provider's options ask for bypass filters, unsubscribe groups or subscription tracking. Ours do that job."
    ),
    "D509": "The sender's domain fails `dripwell doctor`: SPF, DKIM, DMARC or alignment. Mail would be refused.",
    "D510": (
        "The provider has signed no agreement for health data (`baa: false`), and the audience may hold patients."
    ),
    "D511": (
        "An open pixel, provider tracking, UTM parameters or analytics. A clinic's mail tells nobody else who reads it."
    ),
    "D512": (
        "The version has not been approved by the named reviewer since its last edit. `dripwell approve` shows it."
    ),
    "D513": (
        "A clinic fact, an address or a reviewer is still a placeholder (.example, 555, PLACEHOLDER). Looking "
        "and trying out works; a live start is refused until the real value stands there."
    ),
    "D514": (
        "A line break, NUL or character outside ASCII in a header, a name or a subject. It could smuggle in "
        "another header, and some servers refuse it."
    ),
}


def explain(code: str) -> str:
    """The paragraph about a code, or an empty string when there is none."""
    return CATALOG.get(code.strip().upper(), "")
