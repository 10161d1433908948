"""Where a request came from: nobody is believed about it but proxies we trust, and only the network is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.network import UNKNOWN, client_of, networks, truncated

PROXIES = networks("192.0.2.1, 10.0.0.0/8, 2001:db8:ffff::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # not a proxy of ours
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.1", ["8.8.8.8, 198.51.100.1"], "198.51.100.1"),  # what stands left, the client made up
        ("192.0.2.1", ["8.8.8.8", "198.51.100.1"], "198.51.100.1"),
        ("192.0.2.1", ["198.51.100.1, 10.1.2.3"], "198.51.100.1"),  # two proxies
        ("192.0.2.1", ["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        ("2001:db8:ffff::1", ["2001:db8:1::9"], "2001:db8:1::9"),
        ("::ffff:192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.1", ["198.51.100.1, not an address"], "192.0.2.1"),
        ("192.0.2.1", [", ,"], "192.0.2.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_only_trusted_proxies_say_who_the_client_is(peer: str, forwarded: list[str], client: str) -> None:
    assert client_of(peer, forwarded, PROXIES) == client


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("[2001:db8:1::9]", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("testclient", UNKNOWN),
        ("", UNKNOWN),
        ("203.0.113.77:4711", UNKNOWN),
    ],
)
def test_only_the_network_is_kept(address: str, network: str) -> None:
    assert truncated(address) == network


@given(st.text(), st.lists(st.text(), max_size=5))
def test_no_header_breaks_it_or_makes_an_untrusted_peer_somebody_else(peer: str, forwarded: list[str]) -> None:
    assert client_of("203.0.113.7", forwarded, PROXIES) == "203.0.113.7"
    assert isinstance(truncated(client_of(peer, forwarded, PROXIES)), str)


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.1/8", "10.0.0.0/99", "*"])
def test_a_setting_that_names_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|IPv4"):
        networks(text)
