"""Has a server find prime numbers, with nothing but AMP and CBOR."""

import hmac
import os
import sys
from pathlib import Path

from cbor2 import dumps, loads
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import react
from twisted.protocols.amp import AMP, Boolean, Command, String

VERSION = b"2"


class Hello(Command):
    arguments = [(b"version", String()), (b"nonce", String())]
    response = [(b"nonce", String())]


class Prove(Command):
    arguments = response = [(b"proof", String())]


class RunTask(Command):
    arguments = [(b"methodName", String()), (b"args", String())]
    response = [(b"status", String()), (b"result", String())]


class GetNext(Command):
    arguments = [(b"ID", String())]
    response = [(b"value", String(optional=True)), (b"isValid", Boolean())]


async def authenticate(client, key):
    """
    Prove to the server that this end has the key, and check that the server has it.
    """
    nonce = os.urandom(32)
    hello = await client.callRemote(Hello, version=VERSION, nonce=nonce)

    def proof(role):
        parts = b"asynqueue", role, VERSION, nonce, hello["nonce"]
        return hmac.digest(key, b"\0".join(parts), "sha256")

    answer = await client.callRemote(Prove, proof=proof(b"client"))
    if not hmac.compare_digest(answer["proof"], proof(b"server")):
        raise ValueError("The server doesn't have the key")


async def main(reactor, place, file):
    """Run a task, and another that returns an iterator."""
    endpoint = clientFromString(reactor, place)
    client = await connectProtocol(endpoint, AMP())
    await authenticate(client, Path(file).read_bytes().strip())
    args = dumps([1_000_003])
    answer = await client.callRemote(RunTask, methodName=b"isPrime", args=args)
    print(answer["status"], loads(answer["result"]))
    answer = await client.callRemote(RunTask, methodName=b"below", args=dumps([20]))
    item = await client.callRemote(GetNext, ID=answer["result"])
    while item["isValid"]:
        print(loads(item["value"]))
        item = await client.callRemote(GetNext, ID=answer["result"])


if __name__ == "__main__":
    react(main, sys.argv[1:])
