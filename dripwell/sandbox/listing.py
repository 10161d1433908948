"""Who is on the provider's suppression lists: mail to them is accepted, counted and then dropped.

Whom a call's mail is dropped for is decided when it is accepted, and kept with it: its events are the same whenever
they are made.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dripwell.sandbox.behavior import Course, Happening, Kind, course
from dripwell.sandbox.ledger import Call

NAMES = ("bounces", "blocks", "spam_reports", "invalid_emails", "unsubscribes")

WHY: Mapping[str, str] = {
    "invalid_emails": "Invalid",
    "bounces": "Bounced Address",
    "spam_reports": "Spam Reporting Address",
    "unsubscribes": "Unsubscribed Address",
}
"""Why mail to whoever is on a list is dropped, in the provider's words; the first list that has them says it."""

_LISTED: Mapping[Kind, tuple[str, Mapping[str, str]]] = {
    "bounce": ("bounces", {"reason": "550 5.1.1 The email account does not exist.", "status": "5.1.1"}),
    "asyncbounce": ("bounces", {"reason": "550 5.1.1 User unknown", "status": "5.1.1"}),
    "blocked": ("blocks", {"reason": "452 4.2.2 over quota", "status": "4.2.2"}),
    "spamreport": ("spam_reports", {"ip": "192.0.2.25"}),
    "invalid": ("invalid_emails", {"reason": "Mail domain mentioned in email address is unknown"}),
    "unsubscribe": ("unsubscribes", {}),
}
"""What puts an address on a list, and what the entry says."""


class Lists:
    """Every list, by address; each change is a line of `lists.jsonl`. Safe between threads."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lists.jsonl"
        self._lock = threading.Lock()
        self._lists: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in NAMES}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._apply(json.loads(line))

    def put(self, name: str, email: str, at: float, **more: str) -> None:
        """Put an address on a list; who is on it stays as they are."""
        self._change({"list": name, "email": email, "entry": {"created": int(at), "email": email, **more}})

    def take_off(self, name: str, email: str) -> None:
        """Take an address off a list."""
        self._change({"list": name, "email": email, "entry": None})

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """Everybody on a list, the newest first."""
        with self._lock:
            return sorted(self._lists[name].values(), key=lambda entry: -int(entry["created"]))

    def dropped(self, addresses: Sequence[str]) -> dict[int, str]:
        """Whose mail the provider would drop now, by their place in `addresses`, and why."""
        found: dict[int, str] = {}
        with self._lock:
            for name, why in WHY.items():
                people = self._lists[name]
                for index, address in enumerate(addresses) if people else ():
                    if address.lower() in people:
                        found.setdefault(index, why)
        return found

    def learn(self, call: Call, late: float) -> None:
        """Put whoever this call's mails bounce off, or who complains about them, on the list that says so."""
        for index, address in enumerate(call.addresses):
            if "+" not in address:
                continue
            for happening in course_of(call, index, late).happenings:
                name, more = _LISTED.get(happening.kind, ("", {}))
                if name:
                    self.put(name, address, call.at + happening.after, **more)

    def forget(self, email: str) -> None:
        """Take a person out of every list and its past, on the disk too."""
        with self._lock:
            for people in self._lists.values():
                people.pop(email.lower(), None)
            if self._path.exists():
                lines = self._path.read_text(encoding="utf-8").splitlines()
                kept = [line for line in lines if json.loads(line)["email"].lower() != email.lower()]
                fresh = self._path.with_suffix(".new")
                fresh.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                fresh.replace(self._path)

    def _change(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            if self._apply(change):
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(change) + "\n")

    def _apply(self, change: Mapping[str, Any]) -> bool:
        """Whether that changes anything."""
        people, address = self._lists[change["list"]], change["email"].lower()
        if (change["entry"] is None) == (address not in people):
            return False
        if change["entry"] is None:
            del people[address]
        else:
            people[address] = change["entry"]
        return True


def course_of(call: Call, index: int, late: float) -> Course:
    """What becomes of one mail of a call: nothing, when the provider dropped it for its lists."""
    found = course(call.addresses[index], call.nths[index], late)
    if index not in call.dropped:
        return found
    return replace(found, happenings=(Happening("dropped", why=call.dropped[index]),))
