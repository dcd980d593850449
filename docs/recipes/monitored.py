"""
A site with a page that shows what its queue is doing, to those who have a password.
"""

import os
import sys

from factors import factors
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer

from asynqueue import ProcessQueue
from asynqueue.monitor import Monitor


@implementer(IRealm)
class Realm:
    """Gives whoever has a password the page."""

    def __init__(self, page):
        self.page = page

    def requestAvatar(self, name, mind, *interfaces):
        return IResource, self.page, lambda: None


def protected(page, **passwords):
    checker = InMemoryUsernamePasswordDatabaseDontUse(**passwords)
    portal = Portal(Realm(page), [checker])
    return HTTPAuthSessionWrapper(portal, [BasicCredentialFactory(b"queue")])


async def main(reactor, address):
    q = ProcessQueue(2, name="Factors")
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=5)
    await q.call(factors, 360)
    # Whoever has the password may also pause the queue, and cancel what waits.
    page = Monitor(q, authorize=lambda request: True, hosts=["queue.example.org"])
    root = Resource()
    root.putChild(b"queue", protected(page, operator=os.environb[b"PASSWORD"]))
    port = await serverFromString(reactor, address).listen(Site(root))
    print("Listening at port", port.getHost().port, flush=True)
    await Deferred()  # Until Ctrl-C.


if __name__ == "__main__":
    react(main, sys.argv[1:])
