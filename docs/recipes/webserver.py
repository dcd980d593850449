"""A site of twisted.web that computes in child interpreters."""

import sys

from factors import factors
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from asynqueue import ProcessQueue
from asynqueue.errors import QueueFull, TimeoutError


class Factors(Resource):
    """Answers /360 with the prime factors of 360."""

    isLeaf = True

    def __init__(self, q):
        super().__init__()
        self.q = q

    def render_GET(self, request):
        d = Deferred.fromCoroutine(self.answer(request))
        request.notifyFinish().addErrback(lambda _: d.cancel())
        return NOT_DONE_YET

    async def answer(self, request):
        try:
            found = await self.q.call(factors, int(request.postpath[0]), timeout=30)
        except CancelledError:
            return  # The browser has gone. Its child was stopped.
        except (QueueFull, TimeoutError):
            request.setResponseCode(503)
            request.write(b"Too much to do.\n")
        except ValueError:
            request.setResponseCode(404)
        else:
            request.write(f"{found}\n".encode())
        request.finish()


async def main(reactor, address):
    q = ProcessQueue(2, maxQueued=10)
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=5)
    port = await serverFromString(reactor, address).listen(Site(Factors(q)))
    print("Listening at port", port.getHost().port, flush=True)
    await Deferred()  # Until Ctrl-C.


if __name__ == "__main__":
    react(main, sys.argv[1:])
