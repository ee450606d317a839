"""SipHash-2-4 and the server cookie of RFC 9018 section 4.4: what the tests know without the daemon."""

import ipaddress
import struct

MASK = (1 << 64) - 1
VERSION_1 = b"\x01\0\0\0"


def siphash24(key: bytes, data: bytes) -> bytes:
    """Aumasson and Bernstein, SipHash: a fast short-input PRF, section 2.2; little-endian."""
    k0, k1 = struct.unpack("<QQ", key)
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 0xFF])

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0, v2 = (v0 + v1) & MASK, (v2 + v3) & MASK
            v1, v3 = _left(v1, 13) ^ v0, _left(v3, 16) ^ v2
            v0 = _left(v0, 32)
            v2, v0 = (v2 + v1) & MASK, (v0 + v3) & MASK
            v1, v3 = _left(v1, 17) ^ v2, _left(v3, 21) ^ v0
            v2 = _left(v2, 32)

    for (word,) in struct.iter_unpack("<Q", padded):
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return struct.pack("<Q", v0 ^ v1 ^ v2 ^ v3)


def _left(word: int, by: int) -> int:
    return (word << by | word >> 64 - by) & MASK


def server_cookie(
    secret: bytes, client_cookie: bytes, address: str, moment: int, head: bytes = VERSION_1
) -> bytes:
    """The fields of RFC 9018 section 4: version, reserved, timestamp and hash, 16 octets in all."""
    front = head + struct.pack("!I", moment & 0xFFFFFFFF)
    return front + siphash24(secret, client_cookie + front + ipaddress.ip_address(address).packed)
