"""
Makes the files by which the ends of connections know one another.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ._certificates import pinOf, tlsModules
from ._private import writePrivate

__all__ = ["main", "makeKey", "makePair"]

#: For so many days is a certificate valid if nothing else is said.
_DAYS = 1826


def makeKey(path: str | os.PathLike[str]) -> None:
    """
    Make a file with a key that both ends are to have.

    @param path: The file, which mustn't exist. Only its owner has access to it.

    @raise FileExistsError: If it exists.
    """
    writePrivate(path, f"{secrets.token_hex(32)}\n".encode())


def makePair(folder: str | os.PathLike[str], days: int = _DAYS) -> tuple[Path, Path]:
    """
    Make certificates for a server and its clients, each of which knows the other's.

    @param folder: Where to. If it isn't there it's made, for its owner only.

    @param days: For how many days they're valid.

    @return: The files C{server.pem} and C{client.pem}, for
        L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}. Only their owner has access to
        them.

    @raise ImportError: If the extra C{tls} isn't installed.

    @raise FileExistsError: If there is one.

    @raise ValueError: If that's no number of days.
    """
    if days < 1:
        raise ValueError(f"A certificate must be valid for a day at least, not {days}")
    tlsModules()
    place = Path(folder)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = place / "server.pem", place / "client.pem"
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
    made = [_certificate(path.stem, days) for path in paths]
    for path, (key, own), (_, peer) in zip(paths, made, made[::-1], strict=True):
        writePrivate(path, _text(path.stem, key, own, peer))
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Make what the command line says.

    @param arguments: What it says after the program's name, that of this process by
        default.

    @return: The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        text = options.make(options)
    except (ImportError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    """
    Make what understands the command line.

    @return: It.
    """
    parser = argparse.ArgumentParser(
        prog="python -m asynqueue.credentials",
        description="Make what wire workers and servers know one another by.",
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


def _pair(options: Any) -> str:
    """
    Make certificates.

    @param options: What the command line says.

    @return: What is to be said about it.
    """
    server, client = makePair(options.folder, options.days)
    return (
        f"{server}: keep it at the server, tls=TLS.fromFiles({server.name!r})\n"
        f"{client}: move it to the clients, tls=TLS.fromFiles({client.name!r})\n"
    )


def _key(options: Any) -> str:
    """
    Make a key.

    @param options: What the command line says.

    @return: What is to be said about it.
    """
    makeKey(options.file)
    return f"{options.file}: for both ends, key=Key.fromFile({options.file!r})\n"


def _certificate(role: str, days: int) -> tuple[Any, Any]:
    """
    Make a certificate.

    @param role: Whose.

    @param days: For how many days it's valid.

    @return: The private key, and the certificate.
    """
    _, x509 = tlsModules()
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
        # Clocks may differ.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([usage]), False)
        .sign(key, SHA256())
    )
    return key, certificate


def _text(role: str, key: Any, own: Any, peer: Any) -> bytes:
    """
    Make the content of a file.

    @param role: Whose it is.

    @param key: The private key.

    @param own: The certificate.

    @param peer: The other end's.

    @return: The content.
    """
    from cryptography.hazmat.primitives import serialization

    head = (
        f"asynqueue {role}, valid until {own.not_valid_after_utc:%Y-%m-%d}\n"
        f"own: {pinOf(own)}\n"
        f"peer: {pinOf(peer)}\n"
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return head.encode() + bytes(secret) + bytes(own.public_bytes(pem))
