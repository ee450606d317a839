"""The keys of zone transfers (TSIG), and the zones that accept NOTIFY. No message shows a secret."""

import base64
import binascii
import stat
from ipaddress import ip_network

from dnsblock import document
from dnsblock._engine import TransferredZone, TsigKey
from dnsblock.config import Config
from dnsblock.config_rpz import TransferKey
from dnsblock.errors import Problem, Refused
from dnsblock.tls import client_context

MAX_BYTES = 4096
EXPECTED = "must be one line, the secret in base64: in `tsig-keygen`, the text in quotes after `secret`"


def read_key(key: TransferKey) -> TsigKey:
    """Reads the secret of a key. Raises `Refused`."""
    path = key.secret_file
    data = document.read_bytes(path, max_bytes=MAX_BYTES)
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise Refused([Problem(str(path), None, "", f"cannot be read: {err.strerror}")]) from err
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        reason = "others may read it: chmod o-rwx it, and make a new secret"
        raise Refused([Problem(str(path), None, "", reason)])
    try:
        secret = base64.b64decode(data.strip(), validate=True)
        if not secret:
            raise ValueError("empty")
        return TsigKey(key.name, key.algorithm, secret)
    except (binascii.Error, ValueError):  # not chained: the text of the error may have a part of the secret
        raise Refused([Problem(str(path), None, "", EXPECTED)]) from None


def transferred_zones(config: Config) -> tuple[list[TransferredZone], list[Problem]]:
    """The zones for which NOTIFY is accepted, and the problems of their keys and certificates.

    A zone with such a problem accepts none. It is still refreshed at the times that its SOA record says.
    """
    zones: list[TransferredZone] = []
    problems: list[Problem] = []
    for zone in config.zones:
        if zone.rpz is None or zone.rpz.primaries is None:
            continue
        try:
            key = None if zone.rpz.key is None else read_key(zone.rpz.key)
            if zone.rpz.tls is not None and zone.rpz.tls.ca is not None:
                client_context(None, None, zone.rpz.tls.ca)
        except Refused as err:
            problems.extend(err.problems)
            continue
        networks = [*(ip_network(server.host) for server in zone.rpz.servers), *zone.rpz.notify_from]
        senders = [(network.network_address, network.prefixlen) for network in networks]
        zones.append(TransferredZone(zone.name, zone.name, notify_from=senders, key=key))
    return zones, problems
