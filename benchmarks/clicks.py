"""Click redirects a second, against the same web server answering a bare 302.

Every GET is another person's link to the booking page, as in the real series: signature, stored target, one row in the
click log (PostgreSQL with fsync on), a signed word for the next page, 302.
The baseline is a uvicorn of its own with an app of one line, asked by the same client over as many connections in the
same run, so the ratio tells what the program adds and not how fast the machine is.

- `plain 302`: the baseline, redirects/s.
- `clicks`: ours, redirects/s; ratio = ours / plain, of 1.
- `clicks p99`: from request to whole answer, with 16 asking at once.

`--quick`: 1,000 clicks instead of 20,000.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import stand
import uvicorn
from sqlalchemy import text

from dripwell.core.tokens import Purpose, sign

CLICKS = 20_000
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
Message = MutableMapping[str, Any]


async def plain(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """302, and nothing else."""
    if scope["type"] == "http":
        headers = [(b"location", b"https://kcla.example/article"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 302, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def serve_plain(port: int) -> None:
    """The baseline, as the real one is served: one process, no access log."""
    uvicorn.run(plain, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off")


def get(path: str) -> bytes:
    """A GET as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plain", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain is not None:
        serve_plain(given.plain)
        return
    count = 1_000 if given.quick else CLICKS
    with stand.opened() as installation:
        mails = stand.fill(installation, count)
        paths = [f"/c/{sign(installation.keys, Purpose.CLICK, mail.id, NEVER)}-0" for mail in mails]
        port = stand.free_port()
        with stand.process([sys.executable, __file__, "--plain", str(port)], stand.environment(installation)):
            _wait(port)
            stand.ask(port, 200, lambda number: get(paths[number]))
            baseline = stand.ask(port, count, lambda number: get(paths[number]))
        with stand.web(installation) as port:
            stand.ask(port, 200, lambda number: get("/robots.txt"))
            answers = stand.ask(port, count, lambda number: get(paths[number]))
        with installation.database.transaction() as connection:
            rows = connection.execute(text("SELECT count(DISTINCT message_id) FROM click")).scalar_one()
    assert baseline.statuses == answers.statuses == {302: count}, (baseline.statuses, answers.statuses)
    assert rows == count, rows
    print(f"{count:,} clicks, {stand.cores()} cores")
    ours, theirs = count / answers.took, count / baseline.took
    stand.say("plain 302", theirs, "redirects/s", None)
    stand.say("clicks", ours, "redirects/s", ours / theirs)
    stand.say("clicks p99", answers.quantile(0.99) * 1000, "ms", None)


def _wait(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            stand.ask(port, 1, lambda number: get("/"), connections=1)
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
