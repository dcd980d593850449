"""
Certificates: read from files, and looked at.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from .._support.log import log
from ..errors import AuthenticationError
from ._private import readPrivate

__all__ = [
    "aboutError",
    "checkHost",
    "checkTime",
    "isAddress",
    "pinOf",
    "pinsOf",
    "readCertificates",
    "readOwn",
    "tlsModules",
    "warnOfEnd",
]

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)

#: Lines outside the certificates of a file that say whom its owner knows.
_PEER = re.compile(rb"^peer: (sha256:[0-9a-f]{64})\s*$", re.MULTILINE)

#: It's logged if a certificate of one's own expires within this time.
_SOON = timedelta(days=30)


def tlsModules() -> tuple[Any, Any]:
    """
    Import what is needed for TLS.

    @return: The modules C{OpenSSL.SSL} and C{cryptography.x509}.

    @raise ImportError: If it isn't installed.
    """
    try:
        import service_identity  # noqa: F401 - used with the others
        from cryptography import x509
        from OpenSSL import SSL
    except ImportError as error:
        raise ImportError(
            "Certificates need the extra tls: pip install 'asynqueue[tls]'"
        ) from error
    return SSL, x509


def pinOf(certificate: Any) -> str:
    """
    Compute what a certificate is known by.

    @param certificate: The certificate, of C{cryptography}'s.

    @return: Its digest.
    """
    from cryptography.hazmat.primitives.hashes import SHA256

    return f"sha256:{certificate.fingerprint(SHA256()).hex()}"


def checkTime(certificate: Any) -> None:
    """
    See that a certificate is valid now.

    @param certificate: The certificate.

    @raise AuthenticationError: If it isn't.
    """
    now = datetime.now(timezone.utc)
    if now > certificate.not_valid_after_utc:
        raise AuthenticationError("The certificate has expired")
    if now < certificate.not_valid_before_utc:
        raise AuthenticationError("The certificate isn't valid yet")


def warnOfEnd(own: Any) -> None:
    """
    Log that one's certificate isn't valid for long.

    @param own: The certificate.
    """
    end = own.not_valid_after_utc
    left = end - datetime.now(timezone.utc)
    if left < _SOON:
        log.warn(
            "The certificate {pin} {when} {end}: the other ends won't accept it then",
            pin=pinOf(own),
            when="expires on" if left > timedelta() else "has expired on",
            end=end.date(),
        )


def aboutError(error: int, certificate: Any) -> str:
    """
    Say why OpenSSL doesn't accept a certificate.

    @param error: Its number for that.

    @param certificate: The certificate.

    @return: The text.
    """
    try:
        checkTime(certificate)
    except AuthenticationError as late:
        return str(late)
    return f"The certificate {pinOf(certificate)} isn't good (OpenSSL's error {error})"


def checkHost(connection: Any, host: str) -> None:
    """
    See that a certificate is that of a host.

    @param connection: The connection of OpenSSL.

    @param host: The host.

    @raise AuthenticationError: If it isn't.
    """
    from service_identity import CertificateError, VerificationError
    from service_identity.pyopenssl import verify_hostname, verify_ip_address

    verify = verify_ip_address if isAddress(host) else verify_hostname
    try:
        verify(connection, host)
    except (CertificateError, VerificationError):
        raise AuthenticationError(
            f"The server's certificate isn't for {host}"
        ) from None


def isAddress(host: str) -> bool:
    """
    Tell whether a host is given by its address.

    @param host: The host.

    @return: Whether it is.
    """
    return ":" in host or host.replace(".", "").isdigit()


def readOwn(path: str | os.PathLike[str]) -> tuple[Any, list[Any], list[str]]:
    """
    Read a file with a private key.

    @param path: The file.

    @return: The key, the certificate and those after it, and digests of accepted ones.

    @raise ValueError: If it isn't there.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # No variable has the key when something is raised: a traceback may be shown with
    # all of them.
    data = readPrivate(path)
    pins = [pin.decode() for pin in _PEER.findall(data)]
    certificates = [text for label, text in _blocks(data) if label == b"CERTIFICATE"]
    secrets = [text for label, text in _blocks(data) if label.endswith(b"PRIVATE KEY")]
    count = len(secrets)
    if count != 1:
        del data, secrets
        raise ValueError(f"{path} must have one private key, and has {count}")
    del data
    try:
        key = load_pem_private_key(secrets.pop(), None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The private key in {path} can't be read: {error}") from None
    return key, _certificates(certificates, path), pins


def _blocks(data: bytes) -> list[tuple[bytes, bytes]]:
    """
    Take a file of PEM's apart.

    @param data: What's in it.

    @return: What it has, each with its label.
    """
    return [(match[1], match[0]) for match in _PEM.finditer(data)]


def _certificates(texts: list[bytes], path: object) -> list[Any]:
    """
    Read certificates.

    @param texts: They as text.

    @param path: The file that they're from.

    @return: The certificates.

    @raise ValueError: If there are none.
    """
    _, x509 = tlsModules()
    if not texts:
        raise ValueError(f"There's no certificate in {path}")
    try:
        return [x509.load_pem_x509_certificate(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"A certificate in {path} can't be read: {error}") from None


def readCertificates(path: str | os.PathLike[str]) -> list[Any]:
    """
    Read certificates from a file that everybody may know.

    @param path: The file.

    @return: The certificates.

    @raise ValueError: If there are none.
    """
    with open(path, "rb") as file:
        blocks = _blocks(file.read(1 << 20))
    texts = [text for label, text in blocks if label == b"CERTIFICATE"]
    del blocks
    return _certificates(texts, path)


def pinsOf(item: str | os.PathLike[str]) -> list[str]:
    """
    Find out what certificates are known by.

    @param item: The digest of one, or a file with some.

    @return: Their digests.
    """
    if isinstance(item, str) and item.startswith("sha256:"):
        return [item]
    return [pinOf(certificate) for certificate in readCertificates(item)]
