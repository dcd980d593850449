"""
A web page that shows what a queue is doing, for any application to mount, with the
figures as JSON and for Prometheus.

C{python -m asynqueue.monitor} shows it with a queue that has something to do.
"""

from ._resource import Monitor

__all__ = ["Monitor"]
