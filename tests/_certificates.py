"""Certificates for tests: good ones, expired ones, and those of an authority."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from asynqueue.wire import TLS

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from OpenSSL import SSL
except ImportError:
    SSL = None

__all__ = ["SSL", "Identity", "withContext"]


class Identity:
    """A private key with its certificate."""

    def __init__(
        self,
        name: str,
        issuer: Identity | None = None,
        days: tuple[int, int] = (-1, 50),
        names: Iterable[str] = (),
        isAuthority: bool = False,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(isAuthority, None), critical=True)
        )
        alternatives: list[Any] = [
            x509.IPAddress(ip_address(n)) if n[-1].isdigit() else x509.DNSName(n)
            for n in names
        ]
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        signer = issuer.key if issuer else self.key
        self.certificate: Any = builder.sign(signer, SHA256())

    @property
    def pem(self) -> bytes:
        """The certificate as text."""
        return bytes(self.certificate.public_bytes(Encoding.PEM))

    @property
    def secret(self) -> bytes:
        """The private key as text."""
        return bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def save(self, path: Path) -> Path:
        """Write both to a file."""
        path.write_bytes(self.secret + self.pem)
        path.chmod(0o600)
        return path

    def accepting(self, *others: Identity) -> TLS:
        """Use it where certain others are accepted."""
        return TLS(self.secret + self.pem, [other.pem for other in others])

    def under(self, authority: Identity, *between: Identity) -> TLS:
        """Use it where those of an authority are accepted."""
        own = b"".join((self.secret, self.pem, *(each.pem for each in between)))
        return TLS(own, authorities=[authority.pem])


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Has a client use a context of OpenSSL's as it is."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        return SSL.Connection(self._context, None)


def withContext(tls: TLS, context: Any) -> TLS:
    """Have a client's identity use a context of OpenSSL's instead."""
    # No subclass, which would be missing where TLS can't be imported.
    tls.clientOptions = lambda host: _Creator(context)  # type: ignore[method-assign]
    return tls
