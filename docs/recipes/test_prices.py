"""Its tests, without children or waiting."""

from prices import Shop, lookUp
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import TaskQueue
from asynqueue.errors import WorkerLost
from asynqueue.testing import MemoryWorker


class ShopTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.worker = MemoryWorker()
        q = TaskQueue(self.worker, reactor=self.clock)
        self.price = Deferred.fromCoroutine(Shop(q).price("tea"))

    def test_price(self):
        self.assertEqual(self.worker.calls, [(lookUp, "tea")])
        self.worker.complete(3)
        self.assertEqual(self.successResultOf(self.price), 3)

    def test_slow(self):
        self.clock.advance(1)  # The first attempt is stopped,
        self.clock.advance(1)  # and so is the second.
        self.assertIs(self.successResultOf(self.price), None)

    def test_broken(self):
        self.worker.fail(KeyError("tea"))
        self.failureResultOf(self.price, KeyError)

    def test_lost(self):
        self.worker.lose(WorkerLost("The child was killed"))
        self.assertEqual(self.worker.calls, [(lookUp, "tea")])  # The second attempt.
        self.worker.lose(WorkerLost("It was killed, too"))
        self.failureResultOf(self.price, WorkerLost)
