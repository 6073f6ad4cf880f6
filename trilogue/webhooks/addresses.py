"""Where webhooks may go: to public addresses over https, and to private ones only where that is allowed.

A URL comes from a user, and whoever answers for its name in the DNS decides where a request
goes that our machines make. So names are resolved here, every address is judged, and the
sender connects to an address that was judged, not to the name once more.
"""

import ipaddress
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import httpx2

from trilogue.errors import Invalid

LONGEST_URL = 2_000

_V6_WITH_V4 = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64: IPv4 addresses as networks without IPv4 see them
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.100.100.200/32",  # metadata at Alibaba
        "168.63.129.16/32",  # Azure's own agent, at a public address
        "192.0.0.0/24",  # protocols' own; metadata at Oracle
        "192.88.99.0/24",  # relays of 6to4
        "fd00:ec2::/32",  # metadata at AWS
        "fec0::/10",  # site-local, out of use
        "64:ff9b:1::/48",  # NAT64 within a site
        "2001::/23",  # protocols' own; Teredo
    )
)
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )
)


class Reach(Enum):
    """Who an address belongs to."""

    PUBLIC = "public"
    PRIVATE = "private"
    NEVER = "never"


def reach_of(address: IPv4Address | IPv6Address) -> Reach:
    """How an address is judged. Cloud metadata, link-local, multicast and reserved ones are for nobody's webhook."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped or address.scope_id:
            return Reach.NEVER
        for network, shift in _V6_WITH_V4:
            if address in network:
                return reach_of(IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    if any(address in network for network in _NEVER):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    return Reach.PUBLIC if address.is_global and not address.is_multicast and not address.is_reserved else Reach.NEVER


def read_url(url: str, *, allow_private: bool) -> httpx2.URL:
    """The URL of a receiver, checked as far as it can be without asking the DNS.

    Raises:
        Invalid: it is none, has what a webhook must not have, or names an address that is not allowed.
    """
    parsed = _parsed(url)
    host = parsed.host.rstrip(".").lower()
    if parsed.scheme != "https" and not allow_private:
        raise _bad("must begin with https:// (http:// only where TRILOGUE_WEBHOOK_ALLOW_PRIVATE=true)")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            check_address(IPv4Address("127.0.0.1"), parsed, allow_private=allow_private)
    else:
        check_address(literal, parsed, allow_private=allow_private)
    return parsed


def check_address(address: IPv4Address | IPv6Address, url: httpx2.URL, *, allow_private: bool) -> None:
    """Raise `Invalid` unless a webhook to `url` may go to `address`."""
    reach = reach_of(address)
    if reach is Reach.NEVER or (reach is Reach.PRIVATE and not allow_private):
        advice = "; TRILOGUE_WEBHOOK_ALLOW_PRIVATE=true allows it" if reach is Reach.PRIVATE else ""
        raise Invalid(
            f"webhook: the host {url.host!r} is at {str(address)!r}, which is no public address{advice}",
            code="invalid_webhook",
        )
    if url.scheme != "https" and reach is not Reach.PRIVATE:
        raise Invalid(
            f"webhook: the host {url.host!r} is at a public address: that needs https://", code="invalid_webhook"
        )


def shown(url: httpx2.URL) -> str:
    """A receiver for logs and people: path and query may be its owner's secret."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _parsed(url: str) -> httpx2.URL:
    if len(url) > LONGEST_URL:
        raise _bad(f"has {len(url):,} characters; at most {LONGEST_URL:,}")
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise _bad("must be plain ASCII without spaces (a name in another script in its form xn--…)")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        raise _bad("is no URL") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise _bad("must be a URL such as https://example.com/hooks")
    if parsed.userinfo:
        raise _bad("must not hold credentials: the signature tells who it comes from")
    if parsed.fragment or "#" in url:
        raise _bad("must not have a fragment")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise _bad("must have a port of 1 to 65535, or none")
    return parsed


def _bad(what: str) -> Invalid:
    # Never with the URL itself: it may hold a secret of its owner's.
    return Invalid(f"webhook: the URL {what}", code="invalid_webhook")
