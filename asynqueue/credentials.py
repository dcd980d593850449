"""
Keys and certificates, by which workers and servers know each other, and making them.

C{python -m asynqueue.credentials pair FOLDER} makes certificates for a server and its
clients, C{python -m asynqueue.credentials key FILE} a key for one machine.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .wire._credentials import TLS, Key, sslModule

__all__ = ["TLS", "Key", "makeKey", "makePair"]

#: Days that a certificate is valid by default.
_DAYS = 1826


def makeKey(path: str | os.PathLike[str]) -> None:
    """
    Make a file with a key for both ends.

    @param path: The file, which mustn't exist. Only its owner has access to it.

    @raise FileExistsError: If it exists.
    """
    _writePrivate(path, f"{secrets.token_hex(32)}\n".encode())


def makePair(folder: str | os.PathLike[str], days: int = _DAYS) -> tuple[Path, Path]:
    """
    Make certificates for a server and its clients, each of which accepts the other's.

    @param folder: Where to. If it isn't there it's made, for its owner only.

    @param days: For how many days they're valid.

    @return: The files C{server.pem} and C{client.pem}, for
        L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}. Only their owner has access to
        them.

    @raise ImportError: If the extra C{tls} isn't installed.

    @raise FileExistsError: If one of them exists.

    @raise ValueError: If C{days} is less than one.
    """
    if days < 1:
        raise ValueError(f"A certificate must be valid for a day at least, not {days}")
    sslModule()
    place = Path(folder)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    server, client = place / "server.pem", place / "client.pem"
    for path in (server, client):
        if path.exists():
            raise FileExistsError(f"{path} is there already")
    serverKey, serverPEM = _makeCertificate("server", days)
    clientKey, clientPEM = _makeCertificate("client", days)
    for path, key, own, peer in (
        (server, serverKey, serverPEM, clientPEM),
        (client, clientKey, clientPEM, serverPEM),
    ):
        head = f"asynqueue {path.stem}: private key and certificate\n".encode()
        _writePrivate(path, head + key + own + b"accepted of the other end:\n" + peer)
    return server, client


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        text = options.make(options)
    except (ImportError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asynqueue.credentials",
        description="Make credentials for remote workers and their servers.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pair = commands.add_parser(
        "pair", help="make server.pem and client.pem, certificates for TLS"
    )
    pair.add_argument("folder", metavar="FOLDER", help="where to")
    pair.add_argument(
        "--days", type=int, default=_DAYS, help="how long they're valid (%(default)s)"
    )
    pair.set_defaults(make=_pair)
    key = commands.add_parser("key", help="make a key, for one machine")
    key.add_argument("file", metavar="FILE", help="the file, which mustn't exist")
    key.set_defaults(make=_key)
    return parser


def _pair(options: argparse.Namespace) -> str:
    server, client = makePair(options.folder, options.days)
    return (
        f"{server}: keep it on the server, tls=TLS.fromFiles({server.name!r})\n"
        f"{client}: move it to the clients, tls=TLS.fromFiles({client.name!r})\n"
    )


def _key(options: argparse.Namespace) -> str:
    makeKey(options.file)
    return f"{options.file}: for both ends, key=Key.fromFile({options.file!r})\n"


def _makeCertificate(role: str, days: int) -> tuple[bytes, bytes]:
    """Make a private key and a self-signed certificate for a role, in PEM format."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"asynqueue {role}")])
    now = datetime.now(timezone.utc)
    usage = {
        "server": ExtendedKeyUsageOID.SERVER_AUTH,
        "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    }[role]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clocks of the two ends may differ.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([usage]), False)
        .sign(key, SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, certificate.public_bytes(pem)


def _writePrivate(path: str | os.PathLike[str], data: bytes) -> None:
    """Make a file that nobody but its owner can read, at any time."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main())
