"""A site as a service of an application."""

from factors import factors
from klein import Klein
from twisted.application import service, strports
from twisted.python import usage
from twisted.web.server import Site

from asynqueue import ProcessQueue
from asynqueue.service import QueueService


class FactorSite:
    """Answers /360 with the prime factors of 360."""

    app = Klein()

    def __init__(self, queues):
        self.queues = queues

    @app.route("/<int:n>")
    async def answer(self, request, n):
        return f"{await self.queues.queue.call(factors, n, timeout=30)}\n"


class Options(usage.Options):
    """The command line of twist."""

    optParameters = [["listen", "l", "tcp:8080:interface=127.0.0.1", "Where."]]


def makeService(options):
    """Make the application's services."""
    application = service.MultiService()
    queues = QueueService(lambda: ProcessQueue(2), timeout=5)
    queues.setServiceParent(application)
    site = Site(FactorSite(queues).app.resource())
    strports.service(options["listen"], site).setServiceParent(application)
    return application
