"""What SendGrid refuses in POST /v3/mail/send, with its field names, and its wording where known (rules 1.1-1.8).

Written from the published OpenAPI and error pages, not from `dripwell.delivery`: two readings of one contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_BODY = 30 * 1024 * 1024
MAX_PEOPLE = 1_000
MAX_ARGS = 10_000
MAX_SUBSTITUTIONS = 10_000
MAX_FAULTS = 50  # an answer that lists 1,000 equal faults helps nobody

_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html#"
_ADDRESS = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+"
)
_HEADER_KEY = re.compile(r"[!-9;-~]+")  # printable ASCII without space and colon
_RESERVED = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
    | {"to", "from", "subject", "reply-to", "cc", "bcc"}
)
_CONTENT_ORDER = {"text/plain": 0, "text/html": 1}
_NAMES = frozenset(
    {"personalizations", "from", "reply_to", "reply_to_list", "subject", "content", "attachments", "template_id"}
    | {"headers", "categories", "custom_args", "send_at", "batch_id", "asm", "ip_pool_name"}
    | {"mail_settings", "tracking_settings"}
)
_PERSONAL_NAMES = frozenset(
    {"from", "to", "cc", "bcc", "subject", "headers", "substitutions", "dynamic_template_data", "custom_args"}
    | {"send_at"}
)
_PLAIN_NAMES = frozenset({"to", "headers", "substitutions", "custom_args"})
_MOST = {"substitutions": MAX_SUBSTITUTIONS, "custom_args": MAX_ARGS}


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the provider's `errors` array."""

    message: str
    field: str | None = None
    help: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """The shape it has on the wire."""
        return {"message": self.message, "field": self.field, "help": self.help}


def faults(body: object, now: float) -> list[Fault]:
    """Everything wrong with a request body; empty when it would be accepted."""
    if not isinstance(body, dict):
        return [Fault("Bad Request")]
    found: list[Fault] = []
    for fault in _faults(body, now):
        found.append(fault)
        if len(found) == MAX_FAULTS:
            break
    return found


def people(body: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Everybody a valid body mails: (index of the personalization, address), in order."""
    return [
        (index, person["email"])
        for index, personalization in enumerate(body["personalizations"])
        for kind in ("to", "cc", "bcc")
        for person in personalization.get(kind) or ()
    ]


def _faults(body: dict[str, Any], now: float) -> Iterator[Fault]:
    for name in sorted(body.keys() - _NAMES):
        yield Fault("Unknown field", name, None)
    yield from _sender(body.get("from"), "from")
    personalizations = body.get("personalizations")
    if not isinstance(personalizations, list) or not personalizations:
        message = "The personalizations field is required and must have at least one personalization."
        yield Fault(message, "personalizations", f"{_HELP}-Personalizations-Errors")
        return
    if len(personalizations) > MAX_PEOPLE:
        message = f"The personalizations field must have at most {MAX_PEOPLE} personalizations."
        yield Fault(message, "personalizations", f"{_HELP}-Personalizations-Errors")
        return
    domain = _domain(body.get("from"))
    for index, personalization in enumerate(personalizations):
        if not _is_plain(personalization):
            yield from _personalization(personalization, f"personalizations.{index}", domain, now)
    yield from _once_each(personalizations)
    yield from _reply_to(body)
    yield from _subject(body, personalizations)
    yield from _content(body)
    yield from _headers(body.get("headers"), "headers")
    yield from _categories(body.get("categories"))
    yield from _args(body.get("custom_args"), "custom_args")
    yield from _send_at(body.get("send_at"), "send_at", now)
    yield from _switches(body)


def _switches(body: Mapping[str, Any]) -> Iterator[Fault]:
    for name in ("mail_settings", "tracking_settings"):
        settings = body.get(name)
        if settings is None:
            continue
        if not isinstance(settings, dict):
            yield Fault(f"The {name} parameter should be an object.", name)
            continue
        for key, setting in settings.items():
            if not isinstance(setting, dict) or not isinstance(setting.get("enable", False), bool):
                yield Fault("The enable parameter should be a boolean.", f"{name}.{key}.enable")


def _is_address(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 254 and _ADDRESS.fullmatch(value) is not None


def _domain(sender: object) -> str | None:
    email = sender.get("email") if isinstance(sender, dict) else None
    return email.rpartition("@")[2].lower() if isinstance(email, str) else None


def _sender(sender: object, field: str) -> Iterator[Fault]:
    if not isinstance(sender, dict) or "email" not in sender:
        message = (
            "The from object must be provided for every email send. It is an object that requires the email parameter, "
            'but may also contain a name parameter.  e.g. {"email" : "example@example.com"}  or '
            '{"email" : "example@example.com", "name" : "Example Recipient"}.'
        )
        yield Fault(message, f"{field}.email", f"{_HELP}message.from")
    elif not _is_address(sender["email"]):
        yield Fault("The from email does not contain a valid address.", f"{field}.email", f"{_HELP}message.from")
    else:
        yield from _name(sender, field)


def _name(person: Mapping[str, Any], field: str) -> Iterator[Fault]:
    name = person.get("name")
    if name is not None and (not isinstance(name, str) or not _is_one_line(name)):
        yield Fault("The name must be a string without line breaks.", f"{field}.name")


def _is_plain(value: object) -> bool:
    """Whether this is a personalization as nearly all are: one address, headers, substitutions and args of strings.

    True: there is nothing to say about it. False: look closely. A test holds this against looking closely.
    """
    if not isinstance(value, dict) or not value.keys() <= _PLAIN_NAMES:
        return False
    to = value.get("to")
    if not isinstance(to, list) or len(to) != 1 or not isinstance(to[0], dict) or to[0].keys() != {"email"}:
        return False
    parts = [value[name] for name in ("headers", "substitutions", "custom_args") if name in value]
    if not all(isinstance(part, dict) and part and "" not in part for part in parts):
        return False
    texts = [text for part in parts for text in part.values()]
    if not all(map(_is_text, texts)) or not _is_address(to[0]["email"]):
        return False
    if not all(_size(value[name]) <= most for name, most in _MOST.items() if name in value):
        return False
    headers = value.get("headers", {})
    return _are_fit(tuple(headers)) and _is_one_line("".join(headers.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _personalization(value: object, field: str, domain: str | None, now: float) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault("A personalization must be an object.", field, f"{_HELP}-Personalizations-Errors")
        return
    if not value.keys() <= _PERSONAL_NAMES:
        for name in value.keys() - _PERSONAL_NAMES:
            yield Fault("Unknown field", f"{field}.{name}", None)
    to = value.get("to")
    if not isinstance(to, list) or not to:
        message = (
            "The to array is required for all personalization objects, and must have at least one email object with a "
            "valid email address."
        )
        yield Fault(message, f"{field}.to", f"{_HELP}message.personalizations.to")
    for kind in ("to", "cc", "bcc"):
        persons = value.get(kind)
        if persons is None or (kind == "to" and not isinstance(persons, list)):
            continue
        if not isinstance(persons, list):
            yield Fault(f"The {kind} parameter should be an array.", f"{field}.{kind}")
            continue
        for index, person in enumerate(persons):
            if not isinstance(person, dict) or not _is_address(person.get("email")):
                where = f"{field}.{kind}.{index}.email"
                yield Fault("Does not contain a valid address.", where, f"{_HELP}message.personalizations.{kind}")
            elif "name" in person:
                yield from _name(person, f"{field}.{kind}.{index}")
    if "from" in value:
        yield from _sender(value["from"], f"{field}.from")
        if _domain(value["from"]) != domain:
            yield Fault("The from domain must match the domain of the message's from.", f"{field}.from.email")
    if "subject" in value:
        yield from _subject_text(value["subject"], f"{field}.subject")
    if "substitutions" in value:
        yield from _substitutions(value["substitutions"], f"{field}.substitutions")
    if "dynamic_template_data" in value:
        yield Fault("dynamic_template_data needs a dynamic template.", f"{field}.dynamic_template_data")
    yield from _headers(value.get("headers"), f"{field}.headers")
    yield from _args(value.get("custom_args"), f"{field}.custom_args")
    yield from _send_at(value.get("send_at"), f"{field}.send_at", now)


def _once_each(personalizations: Sequence[Any]) -> Iterator[Fault]:
    seen: set[str] = set()
    count = 0
    for index, personalization in enumerate(personalizations):
        for kind in ("to", "cc", "bcc"):
            persons = personalization.get(kind) if isinstance(personalization, dict) else None
            for person in persons if isinstance(persons, list) else ():
                email = person.get("email") if isinstance(person, dict) else None
                if not isinstance(email, str):
                    continue
                count += 1
                if email.lower() in seen:
                    yield _duplicate(email, f"personalizations.{index}.{kind}")
                seen.add(email.lower())
    if count > MAX_PEOPLE:
        message = f"The total number of recipients must be no more than {MAX_PEOPLE}."
        yield Fault(message, "personalizations", f"{_HELP}-Personalizations-Errors")


def _duplicate(email: str, field: str) -> Fault:
    message = (
        "Each email address in the personalization block should be unique between to, cc, and bcc. "
        f"We found the first duplicate instance of [{email}] in the {field} field."
    )
    return Fault(message, "personalizations", f"{_HELP}message.recipient-errors")


def _reply_to(body: Mapping[str, Any]) -> Iterator[Fault]:
    if "reply_to" in body and "reply_to_list" in body:
        yield Fault("Only one of reply_to and reply_to_list may be given.", "reply_to")
    if "reply_to" in body:
        reply_to = body["reply_to"]
        if not isinstance(reply_to, dict) or not _is_address(reply_to.get("email")):
            message = "The reply_to email does not contain a valid address."
            yield Fault(message, "reply_to.email", f"{_HELP}message.reply_to")
        else:
            yield from _name(reply_to, "reply_to")
    listed = body.get("reply_to_list", [])
    for index, person in enumerate(listed if isinstance(listed, list) else [listed]):
        if not isinstance(person, dict) or not _is_address(person.get("email")):
            yield Fault("Does not contain a valid address.", f"reply_to_list.{index}.email", f"{_HELP}message.reply_to")


def _subject(body: Mapping[str, Any], personalizations: Sequence[Any]) -> Iterator[Fault]:
    if "subject" in body:
        yield from _subject_text(body["subject"], "subject")
    elif not all(isinstance(each, dict) and each.get("subject") for each in personalizations):
        message = (
            "The subject is required. You can get around this requirement if you use a template with a subject defined "
            "or if every personalization has a subject defined."
        )
        yield Fault(message, "subject", f"{_HELP}message.subject")


def _subject_text(subject: object, field: str) -> Iterator[Fault]:
    if not isinstance(subject, str) or not subject:
        message = "The subject must be a string at least one character in length."
        yield Fault(message, field, f"{_HELP}message.subject")
    elif not _is_one_line(subject):
        yield Fault("The subject must not contain line breaks.", field, f"{_HELP}message.subject")


def _content(body: Mapping[str, Any]) -> Iterator[Fault]:
    if body.get("template_id"):
        yield Fault("The template_id must be a valid GUID, you provided one this account does not have.", "template_id")
    content = body.get("content")
    if not isinstance(content, list) or not content:
        message = (
            "Unless a valid template_id is provided, the content parameter is required. There must be at least one "
            "defined content block. We typically suggest both text/plain and text/html blocks are included, but only "
            "one block is required."
        )
        yield Fault(message, "content", f"{_HELP}message.content")
        return
    types: list[str] = []
    for index, part in enumerate(content):
        kind, value = (part.get("type"), part.get("value")) if isinstance(part, dict) else (None, None)
        if not isinstance(kind, str) or not kind or not _is_one_line(kind) or ";" in kind:
            message = "The content type must be a string at least one character in length, without parameters."
            yield Fault(message, f"content.{index}.type", f"{_HELP}message.content.type")
        else:
            types.append(kind.lower())
        if not isinstance(value, str) or not value:
            message = "The content value must be a string at least one character in length."
            yield Fault(message, f"content.{index}.value", f"{_HELP}message.content.value")
    ranks = [_CONTENT_ORDER.get(kind, 2) for kind in types]
    if ranks != sorted(ranks):
        message = "If present, text/plain must be first, followed by text/html, followed by any other content."
        yield Fault(message, "content", f"{_HELP}message.content")
    if len(set(types)) != len(types):
        yield Fault("Each content type may be given only once.", "content", f"{_HELP}message.content")


def _headers(headers: object, field: str) -> Iterator[Fault]:
    if headers is None:
        return
    help_ = f"{_HELP}message.headers"
    if not isinstance(headers, dict):
        yield Fault("The headers parameter must be an object of strings.", field, help_)
        return
    if len({key.lower() for key in headers}) != len(headers):
        yield Fault("Header keys must be unique.", field, help_)
    for key, value in headers.items():
        if not _HEADER_KEY.fullmatch(key):
            yield Fault("Header keys must be ASCII without spaces.", f"{field}.{key}", help_)
        elif key.lower() in _RESERVED:
            yield Fault(f"The header {key} is reserved and may not be overridden.", f"{field}.{key}", help_)
        elif not isinstance(value, str):
            yield Fault("Header values must be strings.", f"{field}.{key}", help_)
        elif not _is_one_line(value):
            yield Fault("Header values must not contain CR, LF or NUL.", f"{field}.{key}", help_)


@lru_cache(maxsize=100)
def _are_fit(keys: tuple[str, ...]) -> bool:
    # A thousand people have the same few.
    lower = {key.lower() for key in keys}
    return len(lower) == len(keys) and not lower & _RESERVED and all(_HEADER_KEY.fullmatch(key) for key in keys)


def _categories(categories: object) -> Iterator[Fault]:
    if categories is None:
        return
    help_ = f"{_HELP}message.categories"
    if not isinstance(categories, list) or not all(isinstance(each, str) for each in categories):
        yield Fault("The categories parameter must be an array of strings.", "categories", help_)
        return
    if len(categories) > 10:
        yield Fault("You may not have more than 10 categories per request.", "categories", help_)
    if len(set(categories)) != len(categories):
        yield Fault("You may not have duplicate categories.", "categories", help_)
    for index, category in enumerate(categories):
        if not category or len(category) > 255 or not category.isascii():
            message = "A category must be 1 to 255 ASCII characters."
            yield Fault(message, f"categories.{index}", help_)


def _args(args: object, field: str) -> Iterator[Fault]:
    if args is None:
        return
    help_ = f"{_HELP}message.custom_args"
    if not isinstance(args, dict) or not args:
        yield Fault("The custom_args parameter must be an object that is not empty.", field, help_)
    elif not all(isinstance(value, str) for value in args.values()):
        key = next(key for key, value in args.items() if not isinstance(value, str))
        yield Fault("Each custom_args value must be a string.", f"{field}.{key}", help_)
    elif _size(args) > MAX_ARGS:
        yield Fault(f"The total size of custom_args must not exceed {MAX_ARGS} bytes.", field, help_)


def _substitutions(values: object, field: str) -> Iterator[Fault]:
    help_ = f"{_HELP}message.personalizations.substitutions"
    if not isinstance(values, dict):
        yield Fault("The substitutions parameter must be an object.", field, help_)
    elif "" in values:
        yield Fault("A substitution tag must not be empty.", field, help_)
    elif not all(isinstance(value, str) for value in values.values()):
        key = next(key for key, value in values.items() if not isinstance(value, str))
        yield Fault("Each substitution value must be a string.", f"{field}.{key}", help_)
    elif _size(values) > MAX_SUBSTITUTIONS:
        message = f"The total size of your substitutions must not exceed {MAX_SUBSTITUTIONS} bytes per personalization."
        yield Fault(message, field, help_)


def _send_at(send_at: object, field: str, now: float) -> Iterator[Fault]:
    if send_at is None:
        return
    if not isinstance(send_at, int) or isinstance(send_at, bool):
        yield Fault("The send_at parameter must be a Unix timestamp.", field, f"{_HELP}message.send_at")
    elif send_at > now + 72 * 3600:
        message = "The send_at parameter must not be more than 72 hours ahead."
        yield Fault(message, field, f"{_HELP}message.send_at")


def _size(values: Mapping[str, str]) -> int:
    said = "".join([*values, *values.values()])
    return len(said) if said.isascii() else len(said.encode())


def _is_one_line(text: str) -> bool:
    return "\r" not in text and "\n" not in text and "\0" not in text
