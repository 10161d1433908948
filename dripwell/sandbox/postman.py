"""Posts events to the webhook: signed, in arrays, again and again until they are taken.

One thread with one kept-alive connection. What is still to be posted lives in memory and is made again from the ledger
after a restart: `webhook.json` says up to which call everything was taken, so a kill costs duplicates, never an event.
"""

from __future__ import annotations

import base64
import heapq
import http.client
import json
import os
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dripwell.sandbox.behavior import course
from dripwell.sandbox.config import Config
from dripwell.sandbox.events import Addressee, webhook_events
from dripwell.sandbox.hostile import Mood, fate
from dripwell.sandbox.ledger import Call, Ledger
from dripwell.sandbox.listing import course_of

MAX_EVENTS = 1_000  # in one array
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
TIMEOUT = 10.0
STOP_TIMEOUT = 3.0  # a webhook that does not answer must not keep the program from ending
MARK_EVERY = 0.2  # seconds between two writes of the mark while there is no pause


@dataclass(frozen=True, slots=True)
class Manners:
    """How the webhook is treated just now: `POST /control/webhooks` replaces it."""

    url: str | None
    paused: bool = False
    reversed: bool = False  # the events of each array in reverse order
    copies: int = 1  # each event this often, every copy under its own id
    lost: bool = False  # events are thrown away
    odd: bool = False  # the rarer variant of each field
    delay: float = 0.0  # seconds by which every event comes late


@dataclass(frozen=True, slots=True, order=True)
class _Parcel:
    """One event (or one raw body, `call` 0) waiting to be posted."""

    due: float  # monotonic
    number: int
    call: int
    content: Any


class Key:
    """The signing key of this state folder, made on first use."""

    def __init__(self, state: Path) -> None:
        path = state / "webhook_private.pem"
        if path.exists():
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{path} does not hold an elliptic curve key. Delete it to get a new one.")
            self._private = loaded
        else:
            self._private = ec.generate_private_key(ec.SECP256R1())
            pem = self._private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            _write(path, pem, 0o600)
        der = self._private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = base64.b64encode(der).decode()
        _write(state / "webhook_public.txt", self.public.encode() + b"\n", 0o644)

    def sign(self, timestamp: str, body: bytes) -> str:
        """The signature header: base64 of the DER signature over timestamp and raw body."""
        return base64.b64encode(self._private.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()


class Postman:
    """Start it with `start`, give it every accepted call with `take`, stop it with `stop`."""

    def __init__(self, ledger: Ledger, key: Key, config: Config) -> None:
        self.key = key
        self._ledger = ledger
        self._now = config.now
        self._late = config.late
        self._mark_path = config.state / "webhook.json"
        self._manners = changed(Manners(None), {"url": config.webhook})
        self._mood = config.mood
        self._changed = threading.Condition()
        self._heap: list[_Parcel] = []
        self._numbers = 0
        self._waiting: deque[Call] = deque()  # accepted, events not made yet
        self._waiting_mails = 0
        self._open: Counter[int] = Counter()  # events not yet taken, by call
        self._in_hand = 0
        self._taken = 0
        self._posts = 0
        self._failures = 0
        self._last_failure = ""
        self._stopping = False
        self._connection: http.client.HTTPConnection | None = None
        self._connected_to: SplitResult | None = None
        self._known = 0  # highest call given to `take`
        self._mark = self._read_mark()
        self._marked = 0.0  # when, monotonic
        self._thread = threading.Thread(target=self._work, name="postman", daemon=True)

    def start(self) -> None:
        """Begin, with everything the last run did not get rid of."""
        self._known = self._mark
        for number in range(self._mark + 1, self._ledger.calls + 1):
            self.take(self._ledger.call(number))
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What is left is posted by the next run."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(STOP_TIMEOUT)

    def take(self, call: Call) -> None:
        """Queue the events of an accepted call. Without a webhook there is nobody to tell."""
        with self._changed:
            self._known = max(self._known, call.number)
            if self._manners.url is not None and not self._manners.lost:
                self._waiting.append(call)
                self._waiting_mails += len(call.addresses)
            self._changed.notify()

    def post_raw(self, body: bytes) -> None:
        """Queue a body of any content, signed and retried like any other."""
        with self._changed:
            self._push(time.monotonic(), 0, body)
            self._changed.notify()

    @property
    def manners(self) -> Manners:
        """How the webhook is treated just now."""
        return self._manners

    def behave(self, manners: Manners) -> None:
        """Treat the webhook differently from now on."""
        with self._changed:
            self._manners = manners
            self._changed.notify()

    def take_mood(self, mood: Mood) -> None:
        """Let other events go wrong from now on."""
        with self._changed:
            self._mood = mood

    def report(self) -> dict[str, Any]:
        """What is pending and how the posting goes. A mail whose events are not made yet counts as one event."""
        with self._changed:
            return {
                "pending": self._waiting_mails + len(self._heap) + self._in_hand,
                "delivered": self._taken,
                "posts": self._posts,
                "failures": self._failures,
                "last_failure": self._last_failure,
            }

    # ---- the thread

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=pause)
                while not self._stopping and (wait := self._nothing_due()) != 0:
                    self._note_mark()
                    self._changed.wait(wait)
                if self._stopping:
                    self._hang_up()
                    return
            self._make_some()
            parcels, url = self._due()
            if not parcels or url is None:
                pause = 0.0
                continue
            pause = 0.0 if self._post(parcels, url) else min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)

    def _nothing_due(self) -> float | None:
        """Seconds until something is due; 0 now; None when nothing is queued."""
        if self._manners.paused or self._manners.url is None:
            return None
        if self._waiting:
            return 0
        return max(0.0, self._heap[0].due - time.monotonic()) if self._heap else None

    def _make_some(self) -> None:
        """Make events until there is an array's worth of them; a long backlog stays in the ledger meanwhile."""
        while True:
            with self._changed:
                is_enough = self._heap and self._heap[0].due <= time.monotonic() and len(self._heap) >= MAX_EVENTS
                if is_enough or not self._waiting:
                    return
                call = self._waiting.popleft()
            self._make(call)

    def _make(self, call: Call) -> None:
        body = self._ledger.body(call)
        categories = tuple(body.get("categories") or ())
        shared = body.get("custom_args") or {}
        manners, mood = self._manners, self._mood
        start = time.monotonic() - (self._now() - call.at) + manners.delay
        made: list[tuple[float, dict[str, Any]]] = []
        for index, address in enumerate(call.addresses):
            own = body["personalizations"][call.rows[index]].get("custom_args") or {}
            to = Addressee(address, call.at, call.provider_id, index, {**shared, **own}, categories)
            becomes = course(address, call.nths[index], self._late)
            if call.dropped:
                becomes = course_of(call, index, self._late)
            heard, nonsense = fate(mood, call.number, index, becomes)
            if nonsense is not None:
                self.post_raw(nonsense)
            webhook_events(
                to,
                heard,
                lambda after, event: made.append((after, event)),
                copies=manners.copies,
                odd=manners.odd,
            )
        with self._changed:
            for after, event in made:
                self._push(start + after, call.number, event)
            self._waiting_mails -= len(call.addresses)

    def _push(self, due: float, call: int, content: Any) -> None:
        self._numbers += 1
        heapq.heappush(self._heap, _Parcel(due, self._numbers, call, content))
        self._open[call] += 1

    def _due(self) -> tuple[list[_Parcel], SplitResult | None]:
        """The next array's events; a raw body goes alone."""
        now = time.monotonic()
        parcels: list[_Parcel] = []
        with self._changed:
            if self._manners.paused or self._manners.url is None:
                return [], None
            while self._heap and self._heap[0].due <= now and len(parcels) < MAX_EVENTS:
                if parcels and (self._heap[0].call == 0 or parcels[0].call == 0):
                    break
                parcels.append(heapq.heappop(self._heap))
            self._in_hand = len(parcels)
            return parcels, urlsplit(self._manners.url)

    def _post(self, parcels: list[_Parcel], url: SplitResult) -> bool:
        """One POST; what was not taken goes back to its place."""
        failure = "" if self._manners.lost else self._try(self._body(parcels), url)
        with self._changed:
            self._in_hand = 0
            if failure:
                self._failures += 1
                self._last_failure = failure
                for parcel in parcels:
                    heapq.heappush(self._heap, parcel)
                return False
            self._taken += len(parcels)
            for parcel in parcels:
                self._open[parcel.call] -= 1
                if not self._open[parcel.call]:
                    del self._open[parcel.call]
            if time.monotonic() - self._marked > MARK_EVERY:
                self._note_mark()
        return True

    def _body(self, parcels: list[_Parcel]) -> bytes:
        if parcels[0].call == 0:
            raw: bytes = parcels[0].content
            return raw
        events = [parcel.content for parcel in parcels]
        return json.dumps(events[::-1] if self._manners.reversed else events, separators=(",", ":")).encode()

    def _try(self, body: bytes, url: SplitResult) -> str:
        """Post once; why it failed, or nothing. A kept connection the other side has closed meanwhile is no failure."""
        timestamp = str(int(self._now()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Signature": self.key.sign(timestamp, body),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        while True:
            if self._connected_to != url:
                self._hang_up()
            is_fresh = self._connection is None
            connection = self._connection or _connect(url)
            self._connection, self._connected_to = connection, url
            self._posts += 1
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if is_fresh:
                    return f"{type(error).__name__}: {error}"[:200]
                continue
            return "" if 200 <= response.status < 300 else f"answered {response.status}"

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---- the mark

    def _note_mark(self) -> None:
        """Write down up to which call everything was taken, when that has changed."""
        waiting = min((call.number for call in self._waiting), default=self._known + 1)
        opened = min((number for number in self._open if number), default=self._known + 1)
        mark = min(waiting, opened) - 1
        self._marked = time.monotonic()
        if mark != self._mark:
            self._mark = mark
            _write(self._mark_path, json.dumps({"taken_up_to_call": mark}).encode(), 0o644)

    def _read_mark(self) -> int:
        if not self._mark_path.exists():
            return 0
        mark = json.loads(self._mark_path.read_bytes())["taken_up_to_call"]
        return min(int(mark), self._ledger.calls)


def changed(manners: Manners, wishes: dict[str, Any]) -> Manners:
    """Return new manners as wished. Raises ValueError naming what is wrong."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "url": (str, type(None)), "paused": bool, "reversed": bool, "copies": int, "lost": bool, "odd": bool,
        "delay": (int, float),
    }  # fmt: skip
    for name, value in wishes.items():
        if name not in kinds:
            raise ValueError(f"There is no webhook setting {name!r}; there are {', '.join(kinds)}.")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and kinds[name] is not bool):
            raise ValueError(f"{name} cannot be {value!r}.")
    made = replace(manners, **wishes)
    if not 1 <= made.copies <= 100 or not 0 <= made.delay <= 7 * 86_400:
        raise ValueError("copies is 1 to 100, delay is seconds from 0 to a week.")
    if made.url is not None:
        parts = urlsplit(made.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("The webhook's url looks like http://127.0.0.1:8000/webhooks/sendgrid.")
    return made


def _connect(url: SplitResult) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(url.hostname or "127.0.0.1", url.port, timeout=TIMEOUT)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a small file whole."""
    temporary = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
