"""One request to a page, read once and handed to a plain function that runs in a thread."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import ImmutableMultiDict
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from dripwell.bootstrap import Installation
from dripwell.core.errors import InvalidTokenError, NotFoundError, UnavailableError
from dripwell.core.network import client_of, networks
from dripwell.core.tokens import Purpose, verify
from dripwell.storage import clicks, clock
from dripwell.storage.clicks import Origin
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.look import Look

log = logging.getLogger("dripwell.web")

LARGEST_FORM = 64 * 1024
_MOST_FIELDS = 60
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands in for the time where a word that never expires is checked before any server is asked."""
Fields = ImmutableMultiDict[str, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page needs of a request. `form` is empty unless this is a POST with a body we can read."""

    installation: Installation
    look: Look
    method: str
    here: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Fields
    client: str = ""  # the address it came from, as far as proxies we trust tell it
    too_large: bool = False  # the body was longer than any form of ours, and `form` is empty

    @property
    def acts(self) -> bool:
        """Whether this is a POST: only a POST changes anything."""
        return self.method == "POST"

    @property
    def word(self) -> str:
        """The signed word in the path."""
        return self.path["word"]

    def field(self, name: str, longest: int = 200) -> str:
        """A form field, trimmed and cut to `longest` characters, without control characters; empty when missing."""
        text = self.form.get(name, "")[: longest * 4]
        return "".join(letter for letter in text if letter.isprintable()).strip()[:longest]

    def identity(self, purpose: Purpose, wall_now: datetime = LONG_AGO) -> int:
        """The id in the path's word; without `wall_now` its age is not looked at. Raises InvalidTokenError."""
        return verify(self.installation.keys, purpose, self.word, wall_now)

    @contextmanager
    def transaction(self) -> Iterator[tuple[Connection, Times]]:
        """A transaction and both clocks. For anything but a POST, PostgreSQL refuses to write in it."""
        with self.installation.database.transaction() as connection:
            if not self.acts:
                clicks.read_only(connection)
            yield connection, self.times(connection)

    def times(self, connection: Connection) -> Times:
        """Both clocks, from the database."""
        return clock.read(connection)

    def origin(self, connection: Connection, purpose: Purpose, times: Times) -> Origin:
        """The mailed message this link came in, of a person who is not erased. Raises InvalidTokenError."""
        found = clicks.origin(connection, self.identity(purpose, times.wall_now))
        if found is None or found.address is None:
            raise InvalidTokenError("this link leads nowhere any more")
        return found


Page = Callable[[Visit], Response]


def endpoint(page: Page, installation: Installation, look: Look) -> Callable[[Request], Awaitable[Response]]:
    """Turn a page into what Starlette calls: the form is read first, the page runs in a thread, errors are pages."""
    trusted = networks(installation.settings.trusted_proxy or "")

    async def answer(request: Request) -> Response:
        fields = await _form(request) if request.method == "POST" else Fields([])
        visit = Visit(
            installation=installation,
            look=look,
            method=request.method,
            here=request.url.path,
            path={name: str(value) for name, value in request.path_params.items()},
            query=request.query_params,
            form=fields or Fields([]),
            client=client_of(
                request.client.host if request.client else "", request.headers.getlist("x-forwarded-for"), trusted
            ),
            too_large=fields is None,
        )
        return await run_in_threadpool(_run, page, visit)

    return answer


def _run(page: Page, visit: Visit) -> Response:
    try:
        return page(visit)
    except (InvalidTokenError, NotFoundError):
        return visit.look.broken_link()
    except UnavailableError:
        log.warning("a page could not be shown: PostgreSQL does not answer")
        return visit.look.unavailable()


async def read_body(request: Request, largest: int) -> bytes | None:
    """The raw body, or None as soon as it is larger than `largest`."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > largest:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > largest:
            return None
    return bytes(body)


async def _form(request: Request) -> Fields | None:
    """The text fields of a form, urlencoded or multipart; none when the body is missing or unreadable.

    None when it is too large.

    An unreadable body is not an error here: a mail program's one-click POST counts whatever it carries.
    """
    body = await read_body(request, LARGEST_FORM)
    if body is None:
        return None
    if not body:
        return Fields([])
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(request, body)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return Fields([])
    return Fields(pairs)


async def _multipart(request: Request, body: bytes) -> Fields:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=0, max_fields=_MOST_FIELDS)  # type: ignore[arg-type]
        read = await parser.parse()
    except (MultiPartException, KeyError, ValueError):
        return Fields([])
    return Fields([(name, value) for name, value in read.multi_items() if isinstance(value, str)])
