"""A use of ade, which finds minima by differential evolution."""

from __future__ import annotations

import random

import numpy
from ade.de import DifferentialEvolution
from ade.population import Population
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from asynqueue.process import ProcessQueue


def rosenbrock(x: float, y: float) -> float:
    """Compute a function whose minimum is 0, at (1, 1)."""
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2


class JobTests(TestCase):
    """The test."""

    timeout = 60

    async def test_minimum(self) -> None:
        """The minimum of a function is found that is evaluated in child processes."""
        random.seed(5)
        numpy.random.seed(5)
        queue = ProcessQueue(2, returnFailure=True)
        self.addCleanup(queue.shutdown)

        def evaluate(values: list[float] | None, limit: float = 0) -> Deferred[float]:
            """Evaluate in a child, if it isn't the end."""
            if values is None:
                return succeed(0.0)
            return queue.call(rosenbrock, *values)

        population = Population(evaluate, ["x", "y"], [(-2, 2), (-1, 3)], popsize=10)
        await population.setup()
        await DifferentialEvolution(population, maxiter=40)()
        for value in population.best().values:
            self.assertApproximates(value, 1, 0.2)
