"""
Certificates by which both ends of a connection know one another.

Needs the extra C{tls}. It's imported when certificates are first used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from zope.interface import implementer

from ..errors import AuthenticationError
from ._certificates import (
    aboutError,
    checkHost,
    checkTime,
    isAddress,
    pinOf,
    pinsOf,
    readCertificates,
    readOwn,
    tlsModules,
    warnOfEnd,
)

__all__ = ["TLS"]

_PIN = re.compile(r"sha256:([0-9a-f]{64})")

#: What OpenSSL may find wrong with a certificate that is known by its digest: nothing,
#: or that it doesn't know who has issued it.
_UNKNOWN_ISSUER = {0, 2, 18, 19, 20, 21}

#: For TLS 1.2. Those of later versions are all good.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"


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
        warnOfEnd(own)
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
        key, chain, pins = readOwn(own)
        given = [peer] if isinstance(peer, (str, os.PathLike)) else list(peer)
        authorities = [] if ca is None else readCertificates(ca)
        if given or authorities:
            pins = [pin for item in given for pin in pinsOf(item)]
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
        checkTime(certificate)
        pin = pinOf(certificate)
        if self.pins:
            if pin not in self.pins:
                raise AuthenticationError(
                    f"The certificate {pin} isn't among those that are accepted"
                )
        elif host is not None:
            checkHost(transport.getHandle(), host)
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
            why = None if isGood else aboutError(error, certificate)
        elif not depth:
            # Who has issued what is known by its digest doesn't matter.
            pin = pinOf(certificate)
            if pin not in self.pins:
                why = f"The certificate {pin} isn't among those that are accepted"
            elif error not in _UNKNOWN_ISSUER:
                why = aboutError(error, certificate)
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
        if host is not None and not isAddress(host):
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
