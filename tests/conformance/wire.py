"""DNS messages byte for byte: the tests build queries (also invalid ones) and read responses with this.

The tests check every byte, and no library does: dnslib drops an empty EDNS option and accepts bytes after the
last record. `read` refuses everything that RFC 1035 section 4.1 does not allow.
"""

import ipaddress
import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass

QTYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "OPT": 41, "DS": 43, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "SVCB": 64, "HTTPS": 65,
    "IXFR": 251, "AXFR": 252, "ANY": 255,
}  # fmt: skip
RCODES = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
    9: "NOTAUTH", 16: "BADVERS", 23: "BADCOOKIE",
}  # fmt: skip

QR, AA, TC, RD, RA, Z, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0040, 0x0020, 0x0010
DO = 0x8000  # flags of OPT: RFC 3225, RFC 9824, draft-ietf-dnsop-delext
CO, DE = 0x4000, 0x2000
EDE_OPTION = 15
COOKIE_OPTION = 10


def qtype_number(qtype: str | int) -> int:
    """`A`, `TYPE65280` (RFC 3597 section 5) or the number itself."""
    if isinstance(qtype, int):
        return qtype
    return QTYPES[qtype] if qtype in QTYPES else int(qtype.removeprefix("TYPE"))


def labels_to_wire(labels: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def name_to_wire(name: str | bytes) -> bytes:
    """A name of plain labels as text, or bytes in wire format unchanged."""
    if isinstance(name, bytes):
        return name
    return labels_to_wire(label.encode("ascii") for label in name.split(".") if label)


def record(owner: str | bytes, rtype: str | int, rdata: bytes, *, ttl: int = 300, rclass: int = 1) -> bytes:
    head = struct.pack("!HHIH", qtype_number(rtype), rclass, ttl, len(rdata))
    return name_to_wire(owner) + head + rdata


def address_record(owner: str | bytes, address: str, *, ttl: int = 300) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return record(owner, "A" if len(packed) == 4 else "AAAA", packed, ttl=ttl)


def option(code: int, data: bytes = b"") -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def opt(
    payload: int = 1232,
    *,
    version: int = 0,
    do: bool = False,
    flags: int = 0,
    options: bytes = b"",
    owner: bytes = b"\0",
    extended_rcode: int = 0,
) -> bytes:
    """An OPT record (RFC 6891 section 6.1.2)."""
    ttl = extended_rcode << 24 | version << 16 | (DO if do else 0) | flags
    return record(owner, "OPT", options, ttl=ttl, rclass=payload)


def question(name: str | bytes, qtype: str | int = "A", qclass: int = 1) -> bytes:
    return name_to_wire(name) + struct.pack("!HH", qtype_number(qtype), qclass)


def message(
    qid: int,
    flags: int,
    questions: Iterable[bytes] = (),
    *,
    answers: Iterable[bytes] = (),
    authority: Iterable[bytes] = (),
    additional: Iterable[bytes] = (),
) -> bytes:
    sections = [list(questions), list(answers), list(authority), list(additional)]
    header = struct.pack("!HHHHHH", qid, flags, *(len(section) for section in sections))
    return header + b"".join(b"".join(section) for section in sections)


def random_id() -> int:
    return random.randrange(0x10000)


def query(
    name: str | bytes,
    qtype: str | int = "A",
    *,
    qid: int | None = None,
    flags: int = RD,
    opcode: int = 0,
    qclass: int = 1,
    edns: bool | bytes = False,
) -> bytes:
    """A query; `edns` is True for a plain OPT, or the bytes of the additional record to add."""
    additional = [edns if isinstance(edns, bytes) else opt()] if edns else []
    flags |= opcode << 11
    qid = random_id() if qid is None else qid
    return message(qid, flags, [question(name, qtype, qclass)], additional=additional)


# ------- Reading -------------------------------------------------------------


class MalformedError(ValueError):
    """A response that no client could read."""


@dataclass(frozen=True, slots=True)
class Record:
    owner: str  # as sent, labels joined by dots; only for names without odd bytes
    rtype: int
    rclass: int
    ttl: int
    rdata: bytes  # names inside SOA and CNAME are written out
    offset: int  # where the record begins in the message

    @property
    def address(self) -> str:
        return str(ipaddress.ip_address(self.rdata))


@dataclass(frozen=True, slots=True)
class SOA:
    owner: str
    ttl: int
    mname: str
    rname: str
    serial: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One response, read strictly: all counts true, nothing behind the last record."""

    raw: bytes
    qid: int
    flags: int
    question: bytes
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
    additional: tuple[Record, ...]  # without OPT
    opt: Record | None

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 15

    @property
    def rcode(self) -> str:
        high = self.opt.ttl >> 24 if self.opt else 0
        number = high << 4 | self.flags & 15
        return RCODES.get(number, str(number))

    @property
    def truncated(self) -> bool:
        return bool(self.flags & TC)

    @property
    def addresses(self) -> list[str]:
        return sorted(record.address for record in self.answer if record.rtype in (1, 28))

    @property
    def ttls(self) -> set[int]:
        return {record.ttl for record in self.answer}

    @property
    def options(self) -> list[tuple[int, bytes]]:
        found, data = [], self.opt.rdata if self.opt else b""
        while data:
            code, length = struct.unpack_from("!HH", data)
            found.append((code, data[4 : 4 + length]))
            data = data[4 + length :]
        return found

    @property
    def extended_errors(self) -> dict[int, str]:
        """INFO-CODE -> EXTRA-TEXT (RFC 8914 section 2)."""
        return {
            int.from_bytes(data[:2]): data[2:].decode("utf-8")
            for code, data in self.options
            if code == EDE_OPTION
        }

    @property
    def soa(self) -> SOA:
        """The only record of the authority section, which must be an SOA (RFC 2308 section 3)."""
        (found,) = self.authority
        assert found.rtype == QTYPES["SOA"], found
        mname, at = _name(found.rdata, 0)
        rname, at = _name(found.rdata, at)
        serial, _, _, _, minimum = struct.unpack_from("!5I", found.rdata, at)
        return SOA(found.owner, found.ttl, text(mname), text(rname), serial, minimum)

    @property
    def target(self) -> str:
        """Where the first record of the answer, a CNAME, points."""
        assert self.answer[0].rtype == QTYPES["CNAME"], self.answer
        return text(_name(self.answer[0].rdata, 0)[0])

    @property
    def is_nodata(self) -> bool:
        """NOERROR, no answer, an SOA to cache it by (RFC 2308 section 2.2)."""
        return self.rcode == "NOERROR" and not self.answer and self.soa is not None


def text(labels: tuple[bytes, ...]) -> str:
    return ".".join(label.decode("latin-1") for label in labels) + "."


def read(raw: bytes) -> Reply:
    try:
        qid, flags, *counts = struct.unpack_from("!6H", raw)
        at = 12
        for _ in range(counts[0]):
            at = _name(raw, at)[1] + 4
        asked = raw[12:at]
        sections = []
        for count in counts[1:]:
            records = []
            for _ in range(count):
                found, at = _record(raw, at)
                records.append(found)
            sections.append(records)
    except (struct.error, IndexError) as err:
        raise MalformedError(f"truncated: {raw.hex()}") from err
    if at != len(raw):
        raise MalformedError(f"{len(raw) - at} bytes after the last record: {raw.hex()}")
    opts = [found for found in sections[2] if found.rtype == QTYPES["OPT"]]
    if len(opts) > 1:
        raise MalformedError(f"two OPT: {raw.hex()}")
    rest = tuple(found for found in sections[2] if found.rtype != QTYPES["OPT"])
    return Reply(
        raw, qid, flags, asked, tuple(sections[0]), tuple(sections[1]), rest, opts[0] if opts else None
    )


def _name(raw: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """The labels of the name at `at`, and where it ends. Pointers must point strictly backwards."""
    labels: list[bytes] = []
    end = None
    limit = at
    while raw[at]:
        length = raw[at]
        if length >= 0xC0:
            pointer = (length & 0x3F) << 8 | raw[at + 1]
            if pointer >= limit:
                raise MalformedError(f"pointer forwards at {at}: {raw.hex()}")
            end = at + 2 if end is None else end
            at = limit = pointer
            continue
        if length > 63 or at + 1 + length > len(raw):
            raise MalformedError(f"bad label at {at}: {raw.hex()}")
        labels.append(raw[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels), at + 1 if end is None else end


def _record(raw: bytes, start: int) -> tuple[Record, int]:
    owner, at = _name(raw, start)
    rtype, rclass, ttl, length = struct.unpack_from("!HHIH", raw, at)
    at += 10
    end = at + length
    if end > len(raw):
        raise MalformedError(f"record at {start} is truncated: {raw.hex()}")
    rdata = raw[at:end]
    if rtype == QTYPES["CNAME"]:
        rdata = labels_to_wire(_name(raw, at)[0])
    elif rtype == QTYPES["SOA"]:
        mname, after = _name(raw, at)
        rname, after = _name(raw, after)
        rdata = labels_to_wire(mname) + labels_to_wire(rname) + raw[after:end]
    return Record(text(owner), rtype, rclass, ttl, rdata, start), end
