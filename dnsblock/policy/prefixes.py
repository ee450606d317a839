"""Address prefixes as names: lists of addresses are compiled, compared and recorded as RPZ triggers.

`192.0.2.0/24` is `24.0.2.0.192.rpz-ip` (draft-vixie-dnsop-dns-rpz-00 section 4.3); the engine writes them so.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

TRIGGERS = ".rpz-ip"
WELL_KNOWN_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
WIDEST_IPV4, WIDEST_IPV6 = 8, 19  # as in the engine: no list contains a wider prefix


def trigger(network: IPv4Network | IPv6Network) -> str:
    """The RPZ trigger name of a prefix."""
    packed = network.network_address.packed
    if network.version == 4:
        parts = [str(byte) for byte in packed]
    else:
        parts = [f"{int.from_bytes(packed[at : at + 2]):x}" for at in range(0, 16, 2)]
    return ".".join([str(network.prefixlen), *reversed(parts)]) + TRIGGERS


def network_of(name: str) -> IPv4Network | IPv6Network | None:
    """The prefix of an RPZ trigger name; None for other names."""
    if not name.endswith(TRIGGERS):
        return None
    length, *parts = name.removesuffix(TRIGGERS).split(".")
    parts.reverse()
    try:
        network = ip_network(f"{('.' if len(parts) == 4 else ':').join(parts)}/{length}")
    except ValueError:
        return None
    return network if trigger(network) == name else None


def shown(name: str) -> str:
    """The display form of a name: a trigger name is shown as its prefix."""
    network = network_of(name)
    return name if network is None else str(network)


def covering(address: IPv4Address | IPv6Address) -> list[str]:
    """The trigger names of all possible prefixes that contain this address, longest first."""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))  # without a link-local zone ID
    network, widest = (IPv4Network, WIDEST_IPV4) if address.version == 4 else (IPv6Network, WIDEST_IPV6)
    return [
        trigger(network((int(address), length), strict=False))
        for length in range(address.max_prefixlen, widest - 1, -1)
    ]


def embedded(address: IPv4Address | IPv6Address, nat64: Iterable[IPv6Network]) -> list[IPv4Address]:
    """The IPv4 addresses that NAT64 translators map an IPv6 address to (RFC 6052 section 2.2)."""
    found = []
    for prefix in (*nat64, WELL_KNOWN_NAT64):
        if address in prefix:
            behind = range(prefix.prefixlen // 8, 16)
            ipv4 = [address.packed[at] for at in behind if at != 8]
            found.append(IPv4Address(bytes(ipv4[:4])))
    return found
