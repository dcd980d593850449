"""
Keys and certificates by which the two ends of a connection know each other, and files
that hold secrets.

No secret is shown: not by C{repr}, not in a pickle, and not in a traceback, even one
with the values of all variables.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any, NoReturn

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import ISystemHandle

from .._support.log import log
from ..errors import AuthenticationError

#: Bytes of a number that is used once, for which a proof is made.
NONCE = 32

#: Bytes that a key has at least. Only programs have to remember it.
_MIN_KEY_BYTES = 32

#: Bytes of a file with credentials that are read at most.
_MAX_FILE_BYTES = 1 << 20

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)

#: A certificate of one's own that expires within this time is logged.
_EXPIRES_SOON = timedelta(days=30)


class Key:
    """
    A secret that both ends of a connection have.

    C{python -m asynqueue.credentials key FILE} makes a file with one.
    """

    __slots__ = ("__secret",)

    def __init__(self, secret: bytes) -> None:
        """
        Make a key.

        @param secret: 32 random bytes, or more.

        @raise TypeError: If it isn't bytes.

        @raise ValueError: If it's too short.
        """
        if not isinstance(secret, bytes):
            raise TypeError(
                f"A key is made of bytes, not of an object of class"
                f" {type(secret).__name__}: to read one from a file, Key.fromFile(path)"
            )
        if len(secret) < _MIN_KEY_BYTES:
            # A traceback may be shown with all variables.
            del secret
            raise ValueError(
                f"A key has at least {_MIN_KEY_BYTES} bytes:"
                " python -m asynqueue.credentials key FILE makes one"
            )
        self.__secret = secret

    @classmethod
    def fromFile(cls, path: str | os.PathLike[str]) -> Key:
        """
        Read a key from a file. White space around it isn't part of it.

        @param path: The file, to which only its owner may have access.

        @raise AuthenticationError: If others have access to the file.

        @raise ValueError: If its content is too short.

        @raise OSError: If it can't be read.
        """
        return cls(_readPrivate(path).strip())

    @classmethod
    def fromEnvironment(cls, name: str = "ASYNQUEUE_KEY") -> Key:
        """
        Get a key from an environment variable.

        @param name: The variable's name.

        @raise AuthenticationError: If there's no such variable.

        @raise ValueError: If its value is too short.
        """
        if name not in os.environ:
            raise AuthenticationError(
                f"There's no key in the environment: the variable {name} isn't set"
            )
        return cls(os.environb[os.fsencode(name)].strip())

    def __repr__(self) -> str:
        return "<Key>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A key can't be pickled or copied: let whoever needs it read it from its"
            " file"
        )

    def handOver(self) -> tuple[Callable[..., Key], tuple[object, ...]]:
        """Tell how to make it again, for the private pipe to a server's process."""
        return Key, (self.__secret,)

    def prove(self, role: bytes, *parts: bytes) -> bytes:
        """
        Make the proof that this end has the key.

        @param role: Which end this is.

        @param parts: What is proved. Their number, and all sizes but the last one's,
            are always the same for a role.
        """
        message = b"\0".join((b"asynqueue", role, *parts))
        return hmac.digest(self.__secret, message, "sha256")

    def check(self, proof: bytes, role: bytes, *parts: bytes) -> bool:
        """Tell, in constant time, whether a proof is the one that L{prove} makes."""
        return hmac.compare_digest(proof, self.prove(role, *parts))


class TLS:
    """
    The certificate that one end of a connection shows, and those that it accepts.

    C{python -m asynqueue.credentials pair FOLDER} makes files for both ends.
    """

    def __init__(
        self, own: bytes, peers: Iterable[bytes] = (), authorities: Iterable[bytes] = ()
    ) -> None:
        """
        Take what L{fromFiles} reads from files.

        @param own: The private key and the certificate that goes with it, and others.

        @param peers: Certificates that are accepted.

        @param authorities: Certificates of authorities.
        """
        ssl = sslModule()
        self._pem = (own, tuple(peers), tuple(authorities))
        del own  # A traceback may be shown with all variables.
        self._own, further = self._parseOwn()
        _, peers, authorities = self._pem
        if not authorities:
            peers, further = peers or tuple(further), []
        if peers and authorities:
            raise AuthenticationError(
                "The other end is known by its own certificate, or by that of an"
                " authority: give peer= or ca=, not both"
            )
        if not peers and not authorities:
            raise AuthenticationError(
                "It isn't said whose certificates are accepted: peer= takes a file"
                " with the other end's certificate, ca= one with an authority's"
            )
        try:
            chain, self._peers, self._authorities = (
                [ssl.Certificate.loadPEM(text) for text in texts]
                for texts in (further, peers, authorities)
            )
        except Exception as error:  # noqa: BLE001 - OpenSSL says not which
            raise ValueError(f"a certificate can't be read: {error}") from None
        self._chain = [certificate.original for certificate in chain]
        self._warnIfExpiring()

    @classmethod
    def fromFiles(
        cls,
        own: str | os.PathLike[str],
        peer: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        ca: str | os.PathLike[str] | None = None,
    ) -> TLS:
        """
        Read an identity from files in PEM format.

        @param own: The file with the private key, which isn't encrypted, and the
            certificate that goes with it. Only its owner may have access to it. With
            C{ca}, further certificates are those between it and the authority's;
            without C{ca} and C{peer}, they are those that are accepted.

        @param peer: A file, or several, with the other end's certificate. That must be
            self-signed, as those of C{asynqueue.credentials} are.

        @param ca: A file with certificates of authorities: those that they have issued
            are accepted. A client also checks that the server's is for the host that it
            connects to.

        @raise ImportError: If the extra C{tls} isn't installed.

        @raise AuthenticationError: If others have access to C{own}, or if no
            certificate would be accepted.

        @raise ValueError: If something is missing in a file, can't be read, or doesn't
            go together.

        @raise OSError: If a file can't be read.
        """
        sslModule()
        files = [peer] if isinstance(peer, (str, os.PathLike)) else list(peer)
        peers = [text for file in files for text in _readCertificates(file)]
        authorities = [] if ca is None else _readCertificates(ca)
        try:
            return cls(_readPrivate(own), peers, authorities)
        except ValueError as error:
            raise ValueError(f"{own} can't be used: {error}") from None

    def __repr__(self) -> str:
        return f"<TLS {self._own.digest('sha256').decode()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A private key can't be pickled or copied")

    def handOver(self) -> tuple[Callable[..., TLS], tuple[object, ...]]:
        """Tell how to make it again, for the private pipe to a server's process."""
        return TLS, self._pem

    def serverOptions(self) -> Any:
        """Make what Twisted needs to serve TLS."""
        ssl = sslModule()
        # PrivateCertificate.options does this, but for the certificates in between.
        return ssl.CertificateOptions(
            privateKey=self._own.privateKey.original,
            certificate=self._own.original,
            extraCertChain=self._chain,
            trustRoot=ssl.trustRootFromCertificates(self._authorities or self._peers),
        )

    def clientOptions(self, host: str) -> Any:
        """Make what Twisted needs to connect to a host by TLS."""
        if not self._authorities:
            # The certificate is known, whatever host it has been made for.
            return self.serverOptions()
        ssl = sslModule()
        return ssl.optionsForClientTLS(
            host,
            ssl.trustRootFromCertificates(self._authorities),
            self._own,
            extraCertificateOptions={"extraCertChain": self._chain},
        )

    def check(self, transport: ISystemHandle, host: str | None) -> None:
        """Check what a handshake leaves open, at a client also whose host that is."""
        # OpenSSL also accepts what was issued with the private key of a peer, and
        # Twisted 26.10 certificates without names for any host.
        peer = sslModule().Certificate.peerFromTransport(transport)
        if self._peers and peer not in self._peers:
            raise AuthenticationError("Its certificate isn't one that is accepted")
        if self._authorities and host is not None:
            from service_identity import CertificateError, VerificationError
            from service_identity.pyopenssl import verify_hostname, verify_ip_address

            isAddress = isIPAddress(host) or isIPv6Address(host)
            verify = verify_ip_address if isAddress else verify_hostname
            try:
                verify(transport.getHandle(), host)
            except (CertificateError, VerificationError):
                raise AuthenticationError(f"Its certificate isn't for {host}") from None

    def _parseOwn(self) -> tuple[Any, list[bytes]]:
        """Load the private key and its certificate, and find further certificates."""
        secrets = _pemBlocks(self._pem[0], b"PRIVATE KEY")
        certificates = _pemBlocks(self._pem[0], b"CERTIFICATE")
        try:
            if len(secrets) != 1 or not certificates:
                why = (
                    "one private key and its certificate are needed, and it has"
                    f" {len(secrets)} and {len(certificates)}"
                )
            elif b"ENCRYPTED" in secrets[0]:
                why = "its private key is encrypted"
            else:
                load = sslModule().PrivateCertificate.loadPEM
                return load(secrets[0] + b"\n" + certificates[0]), certificates[1:]
        except Exception as error:  # noqa: BLE001 - nor does Twisted
            why = f"a private key with its certificate can't be read: {error}"
        del secrets  # A traceback may be shown with all variables.
        raise ValueError(why)

    def _warnIfExpiring(self) -> None:
        end = self._own.original.to_cryptography().not_valid_after_utc
        left = end - datetime.now(timezone.utc)
        if left < _EXPIRES_SOON:
            log.warn(
                "The certificate {tls} {when} {end}: no other end will accept it then",
                tls=self,
                when="expires on" if left > timedelta() else "has expired on",
                end=end.date(),
            )


def sslModule() -> ModuleType:
    """Import C{twisted.internet.ssl} with all that it needs, the extra C{tls}."""
    try:
        # Twisted makes do without it, and doesn't check addresses then.
        import service_identity  # noqa: F401
        from twisted.internet import ssl
    except ImportError as error:
        raise ImportError(
            "Certificates need the extra tls: pip install 'asynqueue[tls]'"
        ) from error
    return ssl


def tlsErrorText(error: BaseException) -> str:
    """Say why a TLS handshake has failed."""
    groups = [group for group in error.args if isinstance(group, list)]
    parts = [part for group in groups for part in group if isinstance(part, tuple)]
    what = "; ".join(str(part[-1]) for part in parts if part and part[-1])
    return f"The TLS handshake has failed: {what or repr(error)}"


def _pemBlocks(data: bytes, label: bytes) -> list[bytes]:
    """Find the blocks of a kind in PEM format, by the end of their label."""
    return [match[0] for match in _PEM.finditer(data) if match[1].endswith(label)]


def _readCertificates(path: str | os.PathLike[str]) -> list[bytes]:
    with open(path, "rb") as file:
        data = file.read(_MAX_FILE_BYTES)
    texts = _pemBlocks(data, b"CERTIFICATE")
    if not texts:
        raise ValueError(f"There's no certificate in {path}")
    # After a private key, only the first certificate is its owner's.
    return texts[:1] if _pemBlocks(data, b"PRIVATE KEY") else texts


def _readPrivate(path: str | os.PathLike[str]) -> bytes:
    """Read a file that holds a secret, if only the user has access to it."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in trustedUsers():
            raise AuthenticationError(
                f"{path} holds a secret, and belongs to another user"
                f" ({status.st_uid}): make it yours"
            )
        if status.st_mode & 0o077:
            raise AuthenticationError(
                f"{path} holds a secret, and others than its owner have access to it"
                f" (mode {stat.S_IMODE(status.st_mode):03o}): chmod 600 {path}"
            )
        return file.read(_MAX_FILE_BYTES)


def trustedUsers() -> tuple[int, int]:
    """List the user, and root, who can do whatever the user can."""
    return (os.geteuid(), 0)
