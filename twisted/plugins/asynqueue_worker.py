"""Tells C{twist} and C{twistd} of a service: C{twist asynqueue-worker --help}."""

from twisted.application.service import ServiceMaker

asynqueueWorker = ServiceMaker(
    "asynqueue worker",
    "asynqueue.wire._command",
    "Runs tasks of asynqueue's queues on other machines, or in this one.",
    "asynqueue-worker",
)
