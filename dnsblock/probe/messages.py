"""DNS messages of probes: writes queries, and reads the parts of a response that are judged.

The only module that uses dnslib. RDATA is read for addresses, CNAME and SRV only, so that a record type that
dnslib does not know makes no response unreadable.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord
from dnslib.label import DNSBuffer, DNSLabel

QType = Literal["A", "AAAA", "HTTPS", "NS", "SRV"]

MAX_PAYLOAD = 1232  # bytes; RFC 9715
MAX_TEXT = 200  # characters of an EXTRA-TEXT
MAX_RECORDS = 500  # of a response; a hostile one may have thousands of slow names
HEADER_BYTES = 12
EXTENDED_ERROR = 15  # the EDNS option of RFC 8914
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}


class NotAReply(Exception):  # noqa: N818  # house style: named for what happened
    """A message that is not the response to the query, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Question:
    """A canonical name and a type. The empty name is the root."""

    name: str
    qtype: QType


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the answer section. Owner and data are lower-case text."""

    owner: str
    rtype: str
    data: str  # an address, the target of a CNAME, HOST:PORT of an SRV; empty for other types


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """An extended DNS error (RFC 8914): INFO-CODE and EXTRA-TEXT."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: the parts that are judged."""

    rcode: str
    is_truncated: bool
    answer: tuple[Record, ...] = ()
    errors: tuple[ExtendedError, ...] = ()

    def has(self, qtype: str) -> bool:
        """Whether the answer section has a record of this type."""
        return any(record.rtype == qtype for record in self.answer)


@lru_cache(maxsize=10_000)
def _query(question: Question) -> bytes:
    """A query with ID 0. RD is set, and an OPT record asks for extended errors."""
    label = DNSLabel(_labels(question.name))
    message = DNSRecord(DNSHeader(id=0, rd=1), q=DNSQuestion(label, getattr(QTYPE, question.qtype)))
    message.add_ar(EDNS0(udp_len=MAX_PAYLOAD))
    return bytes(message.pack())


def query(question: Question, number: int) -> bytes:
    """The query for a question, with this ID."""
    return number.to_bytes(2) + _query(question)[2:]


def _labels(name: str) -> tuple[bytes, ...]:
    return tuple(label.encode("ascii") for label in name.split(".")) if name else ()


def read(data: bytes, question: Question) -> Reply:
    """Reads the response to a question; the caller has checked the ID. Raises `NotAReply`."""
    try:
        return _read(data, question)
    except NotAReply:
        raise
    except Exception as err:  # dnslib raises exceptions of many kinds for a malformed message
        raise NotAReply("a malformed message") from err


def _read(data: bytes, question: Question) -> Reply:
    buffer = DNSBuffer(data)
    header = DNSHeader.parse(buffer)
    if not header.qr:
        raise NotAReply("a query instead of a response")
    if header.q != 1 or _question(buffer) != question:
        raise NotAReply("the response to another question")
    if header.a + header.auth + header.ar > MAX_RECORDS:
        raise NotAReply(f"more than {MAX_RECORDS} records")
    answer = tuple(_record(buffer) for _ in range(header.a))
    for _ in range(header.auth):
        _skip(buffer)
    rcode, errors = header.rcode, tuple[ExtendedError, ...]()
    for _ in range(header.ar):
        rtype, ttl, rdata = _skip(buffer)
        if rtype == QTYPE.OPT:
            rcode += (ttl >> 24) << 4  # RFC 6891 section 6.1.3
            errors = _errors(rdata)
    return Reply(RCODES.get(rcode, f"RCODE{rcode}"), bool(header.tc), answer, errors)


def _question(buffer: Any) -> Question | None:
    found = DNSQuestion.parse(buffer)
    if found.qclass != 1:
        return None
    return Question(_text(found.qname), QTYPE.get(found.qtype))


def _skip(buffer: Any) -> tuple[int, int, bytes]:
    """Reads a record without its owner: type, TTL and RDATA."""
    buffer.decode_name()
    rtype, _, ttl, length = buffer.unpack("!HHIH")
    return rtype, ttl, buffer.get(length)


def _record(buffer: Any) -> Record:
    owner = _text(buffer.decode_name())
    rtype, _, _, length = buffer.unpack("!HHIH")
    start, data = buffer.offset, ""
    if rtype == QTYPE.CNAME:
        data = _text(buffer.decode_name())
    elif rtype == QTYPE.SRV:
        _, _, port = buffer.unpack("!HHH")
        target = _text(buffer.decode_name())
        data = f"{target}:{port}" if target else ""  # RFC 2782: `.` says that there is no service
    elif rtype == QTYPE.A:
        data = str(IPv4Address(buffer.get(length)))
    elif rtype == QTYPE.AAAA:
        data = str(IPv6Address(buffer.get(length)))
    buffer.offset = start
    buffer.get(length)
    return Record(owner, str(QTYPE.get(rtype)), data)


def _text(name: Any) -> str:
    """A name as lower-case text; bytes that a host name does not have are escaped as in a zone file."""
    return ".".join(
        "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b".\\" else f"\\{byte:03}" for byte in label)
        for label in name.label
    ).lower()


def _errors(options: bytes) -> tuple[ExtendedError, ...]:
    """The extended errors among the options of an OPT record."""
    found, at = list[ExtendedError](), 0
    while len(options) >= at + 4:
        code, length = int.from_bytes(options[at : at + 2]), int.from_bytes(options[at + 2 : at + 4])
        value = options[at + 4 : at + 4 + length]
        if code == EXTENDED_ERROR and 2 <= length == len(value):
            text = value[2:].decode("utf-8", "replace").rstrip("\0")
            found.append(ExtendedError(int.from_bytes(value[:2]), text[:MAX_TEXT]))
        at += 4 + length
    return tuple(found)
