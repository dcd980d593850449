"""A use of sAsync, which runs database transactions in a thread."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sasync.database import AccessBroker, transact
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from asynqueue.iteration import Deferator, ListConsumer

SIZES = list(range(36, 46))


class Broker(AccessBroker):
    """A table of shoes."""

    def startup(self) -> Any:
        """Make the table."""
        number = sqlalchemy.Column("number", sqlalchemy.Integer, primary_key=True)
        return self.table(
            "shoes", number, sqlalchemy.Column("size", sqlalchemy.Integer)
        )

    @transact
    def add(self, size: int) -> None:
        """Add a pair."""
        self.shoes.insert().execute(size=size)

    @transact
    def sizes(self) -> Any:
        """Select the sizes of all."""
        columns = self.shoes.c
        return sqlalchemy.select([columns.size]).order_by(columns.number).execute()

    @transact
    def fail(self) -> None:
        """Raise an exception."""
        raise ValueError("it doesn't fit")


class Rows(ListConsumer):
    """A list of what comes from rows of one column."""

    def processItem(self, item: Any) -> Deferred[Any]:
        """Take the column."""
        return succeed(item[0])


class JobTests(TestCase):
    """The test."""

    timeout = 60

    async def test_transactions(self) -> None:
        """
        Rows are written, and read as a list, as a Deferator and by a consumer; the
        error of a transaction arrives.
        """
        broker = Broker("sqlite://", returnFailure=True)
        self.addCleanup(broker.shutdown)
        await broker.waitUntilRunning()
        for size in SIZES:
            await broker.add(size)
        rows = await broker.sizes(asList=True)
        self.assertEqual([row[0] for row in rows], SIZES)
        deferator = await broker.sizes()
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual([(await d)[0] for d in deferator], SIZES)
        consumer = Rows()
        done = broker.sizes(consumer=consumer)
        self.assertEqual(await consumer(), SIZES)
        await done
        text = await broker.fail().addErrback(lambda x: x.getErrorMessage())
        self.assertIn("it doesn't fit", text)
