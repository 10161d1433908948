"""A stored version read back into values, by the same code that reads the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from dripwell.content.load import load, load_site
from dripwell.content.render import Skeleton, compile_step, service_campaign
from dripwell.core.campaign import Campaign, Email, Site
from dripwell.core.errors import NotFoundError
from dripwell.storage import campaigns
from dripwell.storage.database import Connection

SERVICE_LANES: Mapping[str, str] = {"confirm": "confirm", "booking": "booking", "notice": "booking"}
"""The built-in service campaigns and the lane each is mailed in."""


@dataclass(frozen=True, slots=True)
class Published:
    """One immutable version as values. `site` carries the base URL in force on this installation."""

    version_id: int
    campaign_id: int
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
        self._skeletons: dict[tuple[int, str], Skeleton | None] = {}

    def published(self, connection: Connection, version_id: int) -> Published:
        """The version with this id."""
        found = self._published.get(version_id)
        if found is None:
            row = campaigns.version(connection, version_id)
            name = campaigns.by_id(connection, row.campaign_id).name
            site, campaign = parse(row.sources, name)
            found = Published(
                row.id, row.campaign_id, row.number, with_base_url(site, self._base_url), campaign, row.sources
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

    def skeleton(self, published: Published, key: str) -> Skeleton | None:
        """The compiled email with its slots, or None when it must be rendered for each person."""
        place = (published.version_id, key)
        if place not in self._skeletons:
            self._skeletons[place] = compile_step(published.sources, published.site, published.campaign, key)
        return self._skeletons[place]


@lru_cache(maxsize=64)
def _parse(sources: tuple[tuple[str, str], ...], name: str) -> tuple[Site, Campaign]:
    mapping = dict(sources)
    if name in SERVICE_LANES:
        site, problems = load_site(mapping)
        campaign: Campaign | None = service_campaign(mapping, name)
    else:
        loaded = load(mapping, name)
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
