"""The TLS settings of the issuers' API and of its clients, from their certificate files."""

import ssl
from pathlib import Path

from dnsblock import document
from dnsblock.errors import Problem, Refused

NO_AUTHORITY = "contains no usable certificate authority in PEM format"
MAX_BYTES = 4 << 20  # of a file of certificates


def server_context(certificate: Path, key: Path, clients: Path | None) -> ssl.SSLContext:
    """A context for TLS 1.3 only. Clients may present a certificate that `clients` has signed.

    Raises `Refused` with the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a resumed session would not verify the client's certificate again
    for path in (certificate, key, clients):
        if path is not None:
            document.read_bytes(
                path, max_bytes=MAX_BYTES
            )  # OpenSSL gives no usable reason, and a FIFO blocks it
    _load_certificate(context, certificate, key)
    if clients is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(cafile=clients)
        except (ssl.SSLError, OSError, ValueError) as err:
            raise Refused([Problem(str(clients), None, "", NO_AUTHORITY)]) from err
    return context


def client_context(certificate: Path | None, key: Path | None, authorities: Path | None) -> ssl.SSLContext:
    """A context for a client of the API. Without `authorities`, those of the system are trusted.

    Raises `Refused` with the file that cannot be used.
    """
    for path in (certificate, key, authorities):
        if path is not None:
            document.read_bytes(path, max_bytes=MAX_BYTES)
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (ssl.SSLError, OSError, ValueError) as err:
        raise Refused([Problem(str(authorities), None, "", NO_AUTHORITY)]) from err
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        _load_certificate(context, certificate, key or certificate)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # Without a passphrase of our own, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as err:
        raise Refused([_why_unusable(certificate, key, err)]) from err


def _no_passphrase() -> bytes:
    raise ValueError("is encrypted")


def _why_unusable(certificate: Path, key: Path, err: Exception) -> Problem:
    reason = getattr(err, "reason", None) or ""
    if isinstance(err, ValueError) and not isinstance(err, ssl.SSLError):
        return Problem(
            str(key), None, "", "has a passphrase: store the key without one, readable by the daemon only"
        )
    if reason == "KEY_VALUES_MISMATCH":
        return Problem(str(key), None, "", f"is not the key of {certificate}")
    if reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
        return Problem(str(certificate), None, "", f"its key or signature is too weak ({reason})")
    broken, what = (key, "private key") if _is_certificate(certificate) else (certificate, "certificate")
    return Problem(str(broken), None, "", f"contains no usable {what} in PEM format")


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError):
        return False
    return True
