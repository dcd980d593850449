"""The same site with Klein."""

import sys

from factors import factors
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.server import Site

from asynqueue import ProcessQueue
from asynqueue.errors import QueueFull, TimeoutError


class Factors:
    """Answers /360 with the prime factors of 360."""

    app = Klein()

    def __init__(self, q):
        self.q = q

    @app.route("/")
    def home(self, request):
        return "Try /360\n"

    @app.route("/<int:n>")
    async def answer(self, request, n):
        return f"{await self.q.call(factors, n, timeout=30)}\n"

    @app.handle_errors(QueueFull, TimeoutError)
    def refuse(self, request, failure):
        request.setResponseCode(503)
        return "Too much to do.\n"


async def main(reactor, address):
    q = ProcessQueue(2, maxQueued=10)
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=5)
    site = Site(Factors(q).app.resource())
    port = await serverFromString(reactor, address).listen(site)
    print("Listening at port", port.getHost().port, flush=True)
    await Deferred()  # Until Ctrl-C.


if __name__ == "__main__":
    react(main, sys.argv[1:])
