"""The signature algorithms: how keys and signatures are encoded in SSH, and verified with `cryptography`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dnsblock.signatures.wire import Malformed, Reader, Unsupported, mpint, string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

ED25519_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
# ssh-keygen also accepts RSA with 1024 bits, which has been too weak since 2013 (NIST SP 800-131A).
RSA_MIN_BITS, RSA_MAX_BITS = 2048, 16384
RSA_HASHES = {"rsa-sha2-256": "sha256", "rsa-sha2-512": "sha512"}  # RFC 8332


class Key(Protocol):
    """The numbers of a public key, without the name of its type."""

    def encoded(self) -> bytes:
        """The only canonical encoding."""

    def is_signed(self, kind: str, signature: bytes, data: bytes) -> bool:
        """Whether a signature of this kind (its algorithm) is by this key. Raises `Malformed`."""


# ------- Ed25519 (RFC 8709) -------


@dataclass(frozen=True, slots=True)
class Ed25519:
    point: bytes

    @classmethod
    def read(cls, reader: Reader) -> "Ed25519":
        point = reader.string()
        if len(point) != ED25519_BYTES:
            raise Malformed(f"an Ed25519 key has {ED25519_BYTES} bytes, not {len(point):,}")
        return cls(point)

    def encoded(self) -> bytes:
        return string(self.point)

    def is_signed(self, kind: str, signature: bytes, data: bytes) -> bool:
        if len(signature) != ED25519_SIGNATURE_BYTES:
            raise Malformed(
                f"an Ed25519 signature has {ED25519_SIGNATURE_BYTES} bytes, not {len(signature):,}"
            )
        return verify_ed25519(self.point, signature, data)


def verify_ed25519(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a bare Ed25519 signature of the data is by this key (RFC 8032)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):  # ValueError: not the bytes of a key
        return False
    return True


# ------- ECDSA (RFC 5656) -------


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of NIST, y² = x³ - 3x + b (SP 800-186, section 3.2.1)."""

    name: str  # RFC 5656, section 10.1
    prime: int
    b: int
    hash: str  # RFC 5656, section 6.2.1

    @property
    def coordinate_bytes(self) -> int:
        return (self.prime.bit_length() + 7) // 8

    def has(self, x: int, y: int) -> bool:
        """Whether a point is on the curve."""
        p = self.prime
        return x < p and y < p and (y * y - (x * x * x - 3 * x + self.b)) % p == 0


P256 = Curve(
    "nistp256",
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0x5AC635D8_AA3A93E7_B3EBBD55_769886BC_651D06B0_CC53B0F6_3BCE3C3E_27D2604B,
    "sha256",
)
P384 = Curve(
    "nistp384",
    2**384 - 2**128 - 2**96 + 2**32 - 1,
    0xB3312FA7_E23EE7E4_988E056B_E3F82D19_181D9C6E_FE814112_0314088F_5013875A_C656398D_8A2ED19D_2A85C8ED_D3EC2AEF,
    "sha384",
)
P521 = Curve(
    "nistp521",
    2**521 - 1,
    0x0051_953EB961_8E1C9A1F_929A21A0_B68540EE_A2DA725B_99B315F3_B8B48991_8EF109E1_56193951_EC7E937B_1652C0BD_3BB1BF07_3573DF88_3D2C34F1_EF451FD4_6B503F00,
    "sha512",
)
CURVES = (P256, P384, P521)


@dataclass(frozen=True, slots=True)
class Ecdsa:
    curve: Curve
    x: int
    y: int

    @classmethod
    def read(cls, reader: Reader, curve: Curve) -> "Ecdsa":
        if reader.text() != curve.name:
            raise Malformed("the key names another curve than its type")
        point, size = reader.string(), curve.coordinate_bytes
        # OpenSSH writes and reads uncompressed points only (RFC 5656, section 3.1, allows others).
        if len(point) != 1 + 2 * size or point[0] != 4:
            raise Malformed("the point of the key is not uncompressed")
        x, y = (int.from_bytes(part, "big") for part in (point[1 : 1 + size], point[1 + size :]))
        if not curve.has(x, y):
            raise Malformed("the point of the key is not on its curve")
        return cls(curve, x, y)

    @property
    def point(self) -> bytes:
        size = self.curve.coordinate_bytes
        return b"\x04" + self.x.to_bytes(size, "big") + self.y.to_bytes(size, "big")

    def encoded(self) -> bytes:
        return string(self.curve.name) + string(self.point)

    def is_signed(self, kind: str, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        reader = Reader(signature)
        bits = self.curve.prime.bit_length()
        r, s = reader.mpint(bits), reader.mpint(bits)
        reader.end()
        curve = {P256: ec.SECP256R1(), P384: ec.SECP384R1(), P521: ec.SECP521R1()}[self.curve]
        try:
            key = ec.EllipticCurvePublicNumbers(self.x, self.y, curve).public_key()
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hash_of(self.curve.hash)))
        except (InvalidSignature, ValueError):
            return False
        return True


# ------- RSA (RFC 4253, section 6.6, and RFC 8332) -------


@dataclass(frozen=True, slots=True)
class Rsa:
    exponent: int
    modulus: int

    @classmethod
    def read(cls, reader: Reader) -> "Rsa":
        exponent, modulus = reader.mpint(RSA_MAX_BITS), reader.mpint(RSA_MAX_BITS)
        if modulus.bit_length() < RSA_MIN_BITS:
            raise Unsupported(
                f"an RSA key of {modulus.bit_length():,} bits is too weak: make a new key, Ed25519"
            )
        return cls(exponent, modulus)

    def encoded(self) -> bytes:
        return mpint(self.exponent) + mpint(self.modulus)

    def is_signed(self, kind: str, signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        size = (self.modulus.bit_length() + 7) // 8
        if len(signature) > size:
            raise Malformed("the RSA signature is longer than its key")
        try:
            key = rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key()
            # As in OpenSSH, leading zeros may be missing.
            key.verify(signature.rjust(size, b"\0"), data, padding.PKCS1v15(), hash_of(RSA_HASHES[kind]))
        except (InvalidSignature, ValueError):
            return False
        return True


def hash_of(name: str) -> "HashAlgorithm":
    from cryptography.hazmat.primitives import hashes

    return {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[name]
