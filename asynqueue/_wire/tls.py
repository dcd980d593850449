"""
Certificates by which both ends of a connection know one another.

Needs the extra C{tls}. It's imported when certificates are first used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from zope.interface import implementer

from .._log import log
from ..errors import AuthenticationError
from .private import readPrivate

__all__ = ["TLS", "pinOf", "tlsModules"]

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)

_PIN = re.compile(r"sha256:([0-9a-f]{64})")

#: Lines outside the certificates of a file that say whom its owner knows.
_PEER = re.compile(rb"^peer: (sha256:[0-9a-f]{64})\s*$", re.MULTILINE)

#: What OpenSSL may find wrong with a certificate that is known by its digest: nothing,
#: or that it doesn't know who has issued it.
_UNKNOWN_ISSUER = {0, 2, 18, 19, 20, 21}

#: It's logged if a certificate of one's own expires within this time.
_SOON = timedelta(days=30)

#: For TLS 1.2. Those of later versions are all good.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"


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


class TLS:
    """
    What one end of a connection shows of itself, and what it accepts of the other.

    C{python -m asynqueue.credentials pair FOLDER} makes files for both ends.

    @ivar pins: Digests of the certificates that are accepted.
    """

    def __init__(
        self,
        key: Any,
        chain: Iterable[Any],
        pins: Iterable[str] = (),
        authorities: Iterable[Any] = (),
    ) -> None:
        """
        Take an identity. L{fromFiles} reads one.

        @param key: The private key, of C{cryptography}'s.

        @param chain: The certificate that goes with it, and those between it and its
            authority, of C{cryptography}'s.

        @param pins: Digests of the certificates that are accepted, each C{sha256:} and
            64 hexadecimal digits.

        @param authorities: Certificates of authorities whose certificates are accepted.

        @raise ImportError: If the extra C{tls} isn't installed.

        @raise ValueError: If key and certificate don't go together, or a digest is
            none.

        @raise AuthenticationError: If nothing would be accepted, or anything.
        """
        SSL, _ = tlsModules()
        own, *between = chain
        trusted = list(authorities)
        self.pins = frozenset(pins)
        self._own = pinOf(own)
        for pin in self.pins:
            if not _PIN.fullmatch(pin):
                raise ValueError(
                    f"A certificate is known by sha256: and 64 hexadecimal digits, not"
                    f" by {pin!r}"
                )
        if not self.pins and not trusted:
            raise AuthenticationError(
                "It isn't said whose certificates are accepted: peer= takes the other"
                " end's certificate or its digest, ca= an authority's"
            )
        if self.pins and trusted:
            raise AuthenticationError(
                "The other end is known by its own certificate, or by that of an"
                " authority: give peer= or ca=, not both"
            )
        self._context = _context(SSL, key, own, between, trusted, self._accepts)
        _warnOfEnd(own)
        self._parts = (key, [own, *between], trusted)
        self._refused: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    @classmethod
    def fromFiles(
        cls,
        own: str | os.PathLike[str],
        peer: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        ca: str | os.PathLike[str] | None = None,
    ) -> TLS:
        """
        Read an identity from files of PEM's.

        @param own: The file with the private key, which isn't encrypted, the
            certificate that goes with it, and any others up to its authority's. Only
            its owner may have access to it. Lines C{peer: sha256:...} in it say which
            certificates are accepted if neither of the next two does.

        @param peer: Which certificates of the other end are accepted: files with them,
            or their digests (C{sha256:} and 64 hexadecimal digits). One, or several.

        @param ca: A file with certificates of authorities: those are accepted that they
            have issued. A client also checks that the server's is for the host that it
            connects to.

        @return: The identity.

        @raise ImportError: If the extra C{tls} isn't installed.

        @raise AuthenticationError: If others may have access to C{own}, or if nothing
            would be accepted.

        @raise ValueError: If a file doesn't have what it should.

        @raise OSError: If a file can't be read.
        """
        tlsModules()
        key, chain, pins = _readOwn(own)
        given = [peer] if isinstance(peer, (str, os.PathLike)) else list(peer)
        authorities = [] if ca is None else _readCertificates(ca)
        if given or authorities:
            pins = [pin for item in given for pin in _pinsOf(item)]
        return cls(key, chain, pins, authorities)

    def __repr__(self) -> str:
        """
        Show what the other end knows it by.
        """
        return f"<TLS {self._own}>"

    def handOver(self) -> tuple[Callable[..., TLS], tuple[Any, ...]]:
        """
        Tell how the identity is made again in the process of a server that is started
        here. It may go there through a pipe that nobody else has an end of, and nowhere
        else.

        @return: A callable, and its arguments.
        """
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key, chain, trusted = self._parts
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        texts = [
            b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
            for certificates in (chain, trusted)
        ]
        return _remake, (pem, *texts, sorted(self.pins))

    def creator(self, host: str | None = None) -> Any:
        """
        Get what makes the connections of OpenSSL.

        @param host: The host that is connected to, C{None} at a server.

        @return: It.
        """
        return _Creator(self._context, host)

    def check(self, transport: Any, host: str | None) -> bytes:
        """
        See whether the other end may be accepted, when TLS is ready.

        That was seen to on the way there. Here it's seen again, also for a session that
        was resumed.

        @param transport: The transport.

        @param host: The host that was connected to, C{None} at a server.

        @return: What both certificates are known by, the server's first.

        @raise AuthenticationError: If it may not.
        """
        original = transport.getPeerCertificate()
        if original is None:
            raise AuthenticationError("The other end has shown no certificate")
        certificate = original.to_cryptography()
        _checkTime(certificate)
        pin = pinOf(certificate)
        if self.pins:
            if pin not in self.pins:
                raise AuthenticationError(
                    f"The certificate {pin} isn't among those that are accepted"
                )
        elif host is not None:
            _checkHost(transport.getHandle(), host)
        pair = (self._own, pin) if host is None else (pin, self._own)
        return "\0".join(pair).encode()

    def why(self, transport: Any) -> str | None:
        """
        Say why the other end's certificate isn't accepted.

        @param transport: The transport.

        @return: Why, or C{None} if it's not known to have been refused.
        """
        return self._refused.get(transport.getHandle())

    def _accepts(
        self, connection: Any, x509: Any, error: int, depth: int, isGood: int
    ) -> bool:
        """
        Tell OpenSSL whether a certificate is accepted.

        @param connection: The connection.

        @param x509: The certificate.

        @param error: What is wrong with it, 0 if nothing is.

        @param depth: 0 for the other end's own, 1 for that of its issuer, and so on.

        @param isGood: Whether OpenSSL would accept it.

        @return: Whether it is.
        """
        certificate = x509.to_cryptography()
        why: str | None = None
        if not self.pins:
            why = None if isGood else _aboutError(error, certificate)
        elif not depth:
            # Who has issued what is known by its digest doesn't matter.
            pin = pinOf(certificate)
            if pin not in self.pins:
                why = f"The certificate {pin} isn't among those that are accepted"
            elif error not in _UNKNOWN_ISSUER:
                why = _aboutError(error, certificate)
        if why is not None:
            self._refused[connection] = why
        return why is None


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class _Creator:
    """
    Makes connections of OpenSSL.
    """

    def __init__(self, context: Any, host: str | None) -> None:
        """
        Make a creator.

        @param context: What they have in common.

        @param host: The host that is connected to, C{None} at a server.
        """
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """
        Implement C{IOpenSSLClientConnectionCreator.clientConnectionForTLS}.

        @param tlsProtocol: The protocol.

        @return: The connection.
        """
        connection = self.serverConnectionForTLS(tlsProtocol)
        host = self._host
        if host is not None and not _isAddress(host):
            connection.set_tlsext_host_name(host.encode("idna"))
        return connection

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """
        Implement C{IOpenSSLServerConnectionCreator.serverConnectionForTLS}.

        @param tlsProtocol: The protocol.

        @return: The connection.
        """
        SSL, _ = tlsModules()
        return SSL.Connection(self._context, None)


def _remake(key: bytes, chain: bytes, trusted: bytes, pins: Iterable[str]) -> TLS:
    """
    Make an identity again.

    @param key: The private key, as PEM.

    @param chain: The certificates that go with it, as PEM.

    @param trusted: Those of authorities.

    @param pins: Digests of the certificates that are accepted.

    @return: The identity.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates as load

    private: Any = load_pem_private_key(key, None)
    return TLS(private, load(chain), pins, load(trusted) if trusted else ())


def _context(
    SSL: Any, key: Any, own: Any, between: list[Any], trusted: list[Any], accepts: Any
) -> Any:
    """
    Make what all connections have in common.

    Twisted's C{CertificateOptions} has no way for certificates to be accepted by their
    digests, so this is made without it.

    @param SSL: The module.

    @param key: The private key.

    @param own: The certificate.

    @param between: Those up to its authority's.

    @param trusted: Certificates of authorities.

    @param accepts: Tells whether one is accepted.

    @return: It.
    """
    from OpenSSL.crypto import X509

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | getattr(SSL, "OP_NO_RENEGOTIATION", 0)
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"asynqueue")
    context.use_privatekey(key)
    context.use_certificate(own)
    for certificate in between:
        context.add_extra_chain_cert(certificate)
    try:
        context.check_privatekey()
    except SSL.Error:
        raise ValueError("The private key isn't that of the certificate") from None
    for certificate in trusted:
        context.get_cert_store().add_cert(X509.from_cryptography(certificate))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, accepts)
    context.set_cipher_list(_CIPHERS)
    return context


def _checkTime(certificate: Any) -> None:
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


def _warnOfEnd(own: Any) -> None:
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


def _aboutError(error: int, certificate: Any) -> str:
    """
    Say why OpenSSL doesn't accept a certificate.

    @param error: Its number for that.

    @param certificate: The certificate.

    @return: The text.
    """
    try:
        _checkTime(certificate)
    except AuthenticationError as late:
        return str(late)
    return f"The certificate {pinOf(certificate)} isn't good (OpenSSL's error {error})"


def _checkHost(connection: Any, host: str) -> None:
    """
    See that a certificate is that of a host.

    @param connection: The connection of OpenSSL.

    @param host: The host.

    @raise AuthenticationError: If it isn't.
    """
    from service_identity import CertificateError, VerificationError
    from service_identity.pyopenssl import verify_hostname, verify_ip_address

    verify = verify_ip_address if _isAddress(host) else verify_hostname
    try:
        verify(connection, host)
    except (CertificateError, VerificationError):
        raise AuthenticationError(
            f"The server's certificate isn't for {host}"
        ) from None


def _isAddress(host: str) -> bool:
    """
    Tell whether a host is given by its address.

    @param host: The host.

    @return: Whether it is.
    """
    return ":" in host or host.replace(".", "").isdigit()


def _readOwn(path: str | os.PathLike[str]) -> tuple[Any, list[Any], list[str]]:
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


def _readCertificates(path: str | os.PathLike[str]) -> list[Any]:
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


def _pinsOf(item: str | os.PathLike[str]) -> list[str]:
    """
    Find out what certificates are known by.

    @param item: The digest of one, or a file with some.

    @return: Their digests.
    """
    if isinstance(item, str) and item.startswith("sha256:"):
        return [item]
    return [pinOf(certificate) for certificate in _readCertificates(item)]
