"""Events a second: through the route, through ingest, and through both at once; and how long a backlog takes.

Signed arrays go through the real web process into the real inbox (embedded PostgreSQL, fsync on), in the sizes that
SendGrid posts: four fifths of the events in arrays of about 1,000, the rest in arrays of 1 to 10. Every mail has
`processed` and `delivered`; 1 % bounce hard, 1 % are deferred first, 0.1 % complain, 3 % of the events come twice. Each
process has a job: this one posts, one serves, one reads the inbox with `services.ingest`.

- `events together`: first POST to last event read, everything at once. Bar: 2,000/s.
- `events route`, `route p99`: the same arrays while nobody reads. Bars: 2,000/s, 100 ms.
- `events ingest`: draining what that left; `backlog of 1 million`: the same, in seconds. Bars: 2,000/s, 600 s.

A ratio of 1 and above is good. `--events N` for the whole (default 200,000), `--quick` for 20,000. `--profile` shows
where ingest spends its time, without any web process.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import json
import pstats
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import stand
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import text
from stand import Mail

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.address import address_hash
from dripwell.services import ingest
from dripwell.settings import Settings
from dripwell.storage import events

BAR, BAR_ROUTE_P99, BAR_BACKLOG = 2_000.0, 0.100, 600.0
KEY = ec.derive_private_key(0xD21B, ec.SECP256R1())
SEED = 20261102


def happenings(mails: Sequence[Mail], chance: random.Random) -> Iterator[tuple[float, dict[str, object]]]:
    """(when, event) of everybody, in the shape of SendGrid's."""
    began = 1_793_000_000.0
    for place, mail in enumerate(mails):
        accepted = began + place / 2_000
        fate = chance.random()
        kinds = [("processed", 0.0)]
        if fate < 0.01:
            kinds += [("bounce", 2.0)]
        elif fate < 0.02:
            kinds += [("deferred", 3.0), ("delivered", 30.0)]
        else:
            kinds += [("delivered", 1.0 + chance.random() * 3)]
        if fate > 0.999:
            kinds += [("spamreport", 40.0)]
        for kind, after in kinds:
            made = event(mail, kind, accepted + after)
            yield accepted + after, made
            if chance.random() < 0.03:
                yield accepted + after + 20, made


_MORE = {
    "delivered": {"response": "250 2.0.0 OK 1793000000 a1b2c3 - gsmtp", "ip": "192.0.2.25", "tls": 1},
    "deferred": {"response": "451 4.7.1 Try again later", "attempt": "1", "ip": "192.0.2.25", "tls": 1},
    "bounce": {
        "type": "bounce",
        "bounce_classification": "Invalid Address",
        "status": "5.1.1",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
        "ip": "192.0.2.25",
        "tls": 1,
    },
}


def event(mail: Mail, kind: str, at: float) -> dict[str, object]:
    """One event of one mail."""
    return {
        "email": mail.address,
        "timestamp": int(at),
        "event": kind,
        "sg_event_id": base64.urlsafe_b64encode(f"{kind}-{mail.message[:20]}".encode()).decode(),
        "sg_message_id": f"x{mail.batch:021d}.recvd-5f9c8d7b6-abcde-1-65F0C0DE-{mail.id:X}.0",
        "smtp-id": f"<{mail.message}@mail.kcla.example>",
        "category": ["c1", "s1"],
        "dw_m": mail.message,
        "dw_b": str(mail.batch),
        **_MORE.get(kind, {}),
    }


def arrays(mails: Sequence[Mail], chance: random.Random) -> list[tuple[int, bytes]]:
    """(how many events, body), in the order of time."""
    told = [made for _, made in sorted(happenings(mails, chance), key=lambda one: one[0])]
    found = []
    while told:
        # Of ten arrays that are not small, all but two are large: by events, four fifths come in large ones.
        size = chance.randint(700, 1300) if chance.random() < 0.022 else chance.randint(1, 10)
        piece, told = told[-size:], told[:-size]
        found.append((len(piece), json.dumps(piece).encode()))
    return found[::-1]


def request(bodies: Sequence[tuple[int, bytes]], number: int) -> bytes:
    """The signed POST of one array."""
    body = bodies[number][1]
    timestamp = "1793000000"
    signature = base64.b64encode(KEY.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    return stand.post(
        "/webhooks/sendgrid",
        body,
        {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": signature,
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        },
    )


def read_for_ever() -> None:
    """What the worker's `ingest` queue does, in a process of its own."""
    settings = Settings.read()
    database_url, redis_url = bootstrap.urls(settings, None)
    installation = bootstrap.connect(settings, Path.cwd(), database_url, redis_url)
    try:
        drain(installation)
        print("ready", flush=True)
        while True:
            if drain(installation) == 0:
                time.sleep(0.05)
    finally:
        installation.close()


def drain(installation: Installation) -> int:
    """Read the inbox until it is empty; returns how many webhooks."""
    assert installation.door is not None
    return ingest.ingest(
        installation.database,
        installation.door,
        hash_of=partial(address_hash, installation.pepper),
        out_of_time=lambda: False,
    )


def unread(installation: Installation) -> int:
    """How many webhooks are in no end state."""
    with installation.database.transaction() as connection:
        return events.waiting(connection)["new"]


def check(installation: Installation, bodies: Sequence[tuple[int, bytes]]) -> None:
    """Nothing was lost: every event that is not a copy is a row, about a message."""
    distinct = {json.dumps(one, sort_keys=True) for _, body in bodies for one in json.loads(body)}
    with installation.database.transaction() as connection:
        kept, matched = connection.execute(text("SELECT count(*), count(message_id) FROM provider_event")).one()
        aside = events.waiting(connection)["quarantined"]
    assert (kept, matched, aside) == (len(distinct), len(distinct), 0), (kept, matched, len(distinct), aside)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read_for_ever()
        return
    wanted = 20_000 if given.quick else given.events
    key = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with stand.opened(base64.b64encode(key).decode()) as installation:
        mails = stand.fill(installation, int(wanted / 2.07))
        bodies = arrays(mails, random.Random(SEED))
        count = sum(size for size, _ in bodies)
        print(f"{count:,} events in {len(bodies):,} arrays, {stand.cores()} cores, seed {SEED}")
        if given.profile:
            profile(installation, bodies)
        else:
            measure(installation, bodies)
        check(installation, bodies)


def profile(installation: Installation, bodies: Sequence[tuple[int, bytes]]) -> None:
    """Where the time goes."""
    for _, body in bodies:
        with installation.database.transaction() as connection:
            events.put_inbox(connection, body)
    watch = cProfile.Profile()
    began = time.perf_counter()
    watch.runcall(drain, installation)
    count = sum(size for size, _ in bodies)
    took = time.perf_counter() - began
    stand.say("events ingest, profiled", count / took, "events/s", count / took / BAR)
    pstats.Stats(watch).sort_stats("tottime").print_stats(25)


def measure(installation: Installation, bodies: Sequence[tuple[int, bytes]]) -> None:
    """The figures."""
    half = len(bodies) // 2
    first, second = bodies[:half], bodies[half:]
    with stand.web(installation) as port:
        with stand.process([sys.executable, __file__, "--read"], stand.environment(installation), ready=True):
            began = time.perf_counter()
            answers = stand.ask(port, len(first), partial(request, first))
            while unread(installation):
                time.sleep(0.05)
            together = sum(size for size, _ in first) / (time.perf_counter() - began)
        assert answers.statuses == {204: len(first)}, answers.statuses
        answers = stand.ask(port, len(second), partial(request, second))
        assert answers.statuses == {204: len(second)}, answers.statuses
    count = sum(size for size, _ in second)
    began = time.perf_counter()
    drain(installation)
    drained = count / (time.perf_counter() - began)
    stand.say("events together", together, "events/s", together / BAR)
    stand.say("events route", count / answers.took, "events/s", count / answers.took / BAR)
    stand.say("webhooks route", len(second) / answers.took, "posts/s", None)
    stand.say("route p99", answers.quantile(0.99) * 1000, "ms", BAR_ROUTE_P99 / answers.quantile(0.99))
    stand.say("events ingest", drained, "events/s", drained / BAR)
    stand.say("backlog of 1 million", 1e6 / drained, "s", BAR_BACKLOG / (1e6 / drained))


if __name__ == "__main__":
    main()
