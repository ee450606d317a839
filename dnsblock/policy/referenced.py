"""Small files that the configuration refers to: a reload reports which of them have new content.

Their paths do not change when a secret or a certificate is renewed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dnsblock import document
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import Refused
from dnsblock.orders.references import References

MAX_BYTES = 4 << 20  # limit for a file of certificates

Contents = Mapping[str, tuple[Path, str]]  # by option: the path, and the SHA-256 of the content


def contents_of(
    config: Config, secrets: Sequence[bytes], references: References, former: Contents
) -> Contents:
    """The current content of each file. `secrets` and `references` are those in force.

    An unreadable file keeps its previous content here; the code that uses the file reports the problem.
    """
    found: dict[str, tuple[Path, str]] = {}
    if config.cookies.secrets is not None:
        found["cookies.secrets"] = (config.cookies.secrets, _digest(b"".join(secrets)))
    if config.guards.popular is not None and references.own_popular is not None:
        found["guards.popular"] = (config.guards.popular, references.own_popular.sha256)
    for zone in config.zones:
        for name, path in _files_of(zone):
            option = f"zones.{zone.name}.{name}"
            try:
                found[option] = (path, _digest(document.read_bytes(path, max_bytes=MAX_BYTES)))
            except Refused:
                if option in former:
                    found[option] = former[option]
    return found


def _files_of(zone: Zone) -> Iterator[tuple[str, Path]]:
    """The files that a zone refers to, besides its list, by option."""
    tls, key = (None, None) if zone.rpz is None else (zone.rpz.tls, zone.rpz.key)
    found = {
        "source.ca": zone.source.ca,
        "source.authorization": zone.source.authorization,
        "rpz.tls.ca": None if tls is None else tls.ca,
        "rpz.key.secret_file": None if key is None else key.secret_file,
    }
    return ((option, path) for option, path in found.items() if path is not None)


def files_between(before: Contents, after: Contents) -> Iterator[str]:
    """The options whose file has new content under the same path, such as `cookies.secrets (file)`."""
    for option in after:
        if option in before and before[option][0] == after[option][0] and before[option] != after[option]:
            yield f"{option} (file)"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
