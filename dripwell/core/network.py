"""Where a request came from: the client's address behind trusted proxies, truncated to its network."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
UNKNOWN = "unknown"
"""Stands for whatever has no network address; all of it shares one limit."""
_MOST_HOPS = 20


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas. Raises ValueError for anything else."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def client_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The client's address: the socket's, or what trusted proxies say of it in X-Forwarded-For, `forwarded`.

    Each proxy appends whom it heard from, so the list is believed from its end, and only as far as proxies we trust
    wrote it: whatever stands further left, a client may have made up.
    """
    hops = [hop.strip() for line in forwarded for hop in line.split(",") if hop.strip()]
    found = peer
    for hop in reversed(hops[-_MOST_HOPS:]):
        if not _is_in(found, trusted) or _address(hop) is None:
            break
        found = hop
    return found


def truncated(address: str) -> str:
    """The network of an address, for limits and for the ledger: /24 of IPv4, /48 of IPv6, else `unknown`."""
    found = _address(address)
    if found is None:
        return UNKNOWN
    return str(ip_network((found, 24 if found.version == 4 else 48), strict=False))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_in(address: str, trusted: Sequence[Network]) -> bool:
    found = _address(address)
    return found is not None and any(found in network for network in trusted)
