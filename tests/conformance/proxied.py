"""Reads the header of the PROXY protocol, version 2.

https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt, section 2.2.
"""

import ipaddress
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEAD = 16  # signature, version and command, family and transport, length
COMMANDS = {0x20: "LOCAL", 0x21: "PROXY"}
TRANSPORTS = {1: "tcp", 2: "udp"}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header; LOCAL has no addresses."""

    command: str
    transport: str | None = None
    client: tuple[str, int] | None = None
    asked_at: tuple[str, int] | None = None


def is_whole(data: bytes) -> bool:
    return len(data) >= HEAD and len(data) >= HEAD + int.from_bytes(data[14:16])


def read(data: bytes) -> tuple[ProxyHeader, bytes]:
    """The header, and the bytes after it. Raises `ValueError` for anything else."""
    if not data.startswith(SIGNATURE) or not is_whole(data):
        raise ValueError(f"no PROXY protocol header: {data[:64].hex()}")
    command, family = COMMANDS[data[12]], data[13]
    end = HEAD + int.from_bytes(data[14:16])
    body, rest = data[HEAD:end], data[end:]
    if command == "LOCAL":
        return ProxyHeader(command), rest
    size = {0x10: 4, 0x20: 16}[family & 0xF0]
    if len(body) != 2 * size + 4:
        raise ValueError(f"a length of {len(body)} for family {family:#x}")
    source, destination = (str(ipaddress.ip_address(body[at : at + size])) for at in (0, size))
    ports = struct.unpack_from("!HH", body, 2 * size)
    header = ProxyHeader(command, TRANSPORTS[family & 0x0F], (source, ports[0]), (destination, ports[1]))
    return header, rest
