"""The wire format of SSH (RFC 4251, section 5): numbers and strings with a length. Input is hostile."""

import binascii
from dataclasses import dataclass, field


class Malformed(ValueError):  # noqa: N818  # house style: named for what happened
    """Bytes that are not the expected structure. The message says what is wrong with them."""


class Unsupported(ValueError):  # noqa: N818
    """A well-formed key or signature of an algorithm that is not accepted. The message says which are."""


@dataclass(slots=True)
class Reader:
    """Reads one structure from its beginning to its end. Raises `Malformed`."""

    data: bytes
    _at: int = field(default=0, init=False)

    def take(self, count: int) -> bytes:
        """The next bytes, without a length before them."""
        end = self._at + count
        if end > len(self.data):
            raise Malformed("it ends too early")
        taken = self.data[self._at : end]
        self._at = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def text(self) -> str:
        """A string that names something, in ASCII."""
        try:
            return self.string().decode("ascii")
        except UnicodeDecodeError as err:
            raise Malformed("a name in it is not ASCII") from err

    def mpint(self, max_bits: int) -> int:
        """A number that is not negative. As in OpenSSH, it may have leading zeros."""
        written = self.string()
        if written and written[0] >= 0x80:
            raise Malformed("a number in it is negative")
        number = int.from_bytes(written, "big")
        if number.bit_length() > max_bits:
            raise Malformed("a number in it is too large")
        return number

    def end(self) -> None:
        """Checks that nothing follows."""
        if self._at != len(self.data):
            raise Malformed("bytes follow after its end")


def uint32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def string(content: bytes | str) -> bytes:
    data = content.encode("ascii") if isinstance(content, str) else content
    return uint32(len(data)) + data


def mpint(number: int) -> bytes:
    """A number that is not negative, in its shortest form."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


def from_base64(text: bytes) -> bytes:
    """Decodes Base64 without white space, in its only canonical form. Raises `Malformed`."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as err:
        raise Malformed("it is not valid Base64") from err
    # The decoder ignores the unused bits before the padding: two texts would be the same bytes.
    if binascii.b2a_base64(data, newline=False) != text:
        raise Malformed("it is not valid Base64")
    return data
