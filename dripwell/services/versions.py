"""A stored version read back into values, by the same code that reads the files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from uuid import UUID

from dripwell.content.load import load, load_site
from dripwell.content.render import service_campaign
from dripwell.content.staging import Staged, content_key, stage_step
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import NotFoundError
from dripwell.storage import campaigns
from dripwell.storage.database import Connection

SERVICE_LANES: Mapping[str, str] = {"confirm": "confirm", "booking": "booking", "notice": "booking", "keep": "confirm"}
"""The built-in service campaigns and the lane each is mailed in."""
KEPT = 200
"""Staged emails a process keeps, about 100 KB a variant; the one that was used longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Published:
    """One immutable version as values. `site` carries the base URL in force on this installation."""

    version_id: int
    campaign_id: int
    public_id: UUID  # of the campaign
    number: int
    site: Site
    campaign: Campaign
    sources: Mapping[str, str]

    def has(self, key: str) -> bool:
        """Whether this version has an email step with this key."""
        return any(email.key == key for email in self.campaign.emails)

    def email(self, key: str) -> Email:
        """The email step with this key. Raises NotFoundError."""
        for email in self.campaign.emails:
            if email.key == key:
                return email
        raise NotFoundError(f"version {self.number} of {self.campaign.name} has no email `{key}`")


class Versions:
    """Reads versions and keeps what it read: a version never changes. One per process.

    `base_url` overrides the site's, so that links open on this machine in the sandbox; None keeps it.
    """

    def __init__(self, base_url: str | None = None) -> None:
        self._base_url = base_url
        self._published: dict[int, Published] = {}
        self._contents: dict[tuple[int, str], str] = {}
        self._staged: OrderedDict[str, Staged] = OrderedDict()
        self._lock = Lock()  # of `_staged`; nothing is compiled under it

    def published(self, connection: Connection, version_id: int) -> Published:
        """The version with this id."""
        found = self._published.get(version_id)
        if found is None:
            row = campaigns.version(connection, version_id)
            owner = campaigns.by_id(connection, row.campaign_id)
            site, campaign = parse(row.sources, owner.name)
            found = Published(
                version_id=row.id,
                campaign_id=row.campaign_id,
                public_id=owner.public_id,
                number=row.number,
                site=with_base_url(site, self._base_url),
                campaign=campaign,
                sources=row.sources,
            )
            self._published[version_id] = found
        return found

    def wording(self, connection: Connection, campaign_id: int, key: str) -> Published:
        """The newest version that has this step: wording reaches everybody from their next email."""
        for version_id in campaigns.version_ids(connection, campaign_id):
            found = self.published(connection, version_id)
            if found.has(key):
                return found
        raise NotFoundError(f"no version of campaign {campaign_id} has an email `{key}`")

    def staged(self, published: Published, key: str) -> Staged:
        """This email's variants, from the cache when a version with the same words and theme was staged before.

        Raises ContentError when the email cannot be rendered at all.
        """
        place = (published.version_id, key)
        content = self._contents.get(place)
        if content is None:
            content = content_key(published.sources, published.site, published.campaign, key)
            self._contents[place] = content
        with self._lock:
            found = self._staged.get(content)
        if found is None:
            found = stage_step(published.sources, published.site, published.campaign, key)
        with self._lock:
            found = self._staged.setdefault(content, found)  # one of two threads that met it at once
            self._staged.move_to_end(content)
            while len(self._staged) > KEPT:
                self._staged.popitem(last=False)
        return found


@lru_cache(maxsize=64)
def _parse(sources: tuple[tuple[str, str], ...], name: str) -> tuple[Site, Campaign]:
    mapping = dict(sources)
    if name in SERVICE_LANES:
        site, problems = load_site(mapping, stored=True)
        campaign: Campaign | None = service_campaign(mapping, name)
    else:
        loaded = load(mapping, name, stored=True)
        site, campaign, problems = loaded.site, loaded.campaign, loaded.problems
    if site is None or campaign is None:
        first = problems[0].text if problems else "unreadable"
        raise NotFoundError(f"the stored version of {name} cannot be read by this version of Dripwell: {first}")
    return site, campaign


def parse(sources: Mapping[str, str], name: str) -> tuple[Site, Campaign]:
    """Read stored sources. Raises NotFoundError when this Dripwell is too old or too new for them."""
    return _parse(tuple(sorted(sources.items())), name)


def with_base_url(site: Site, base_url: str | None) -> Site:
    """The site with its links starting at `base_url`, when one is given."""
    return site if base_url is None else replace(site, base_url=base_url.rstrip("/"))
