"""
What workers and servers on a network know one another by, and the making of it.

C{python -m asynqueue.credentials pair FOLDER} makes certificates for a server and its
clients, C{python -m asynqueue.credentials key FILE} a key for one machine.
"""

import sys

from .wire._credentials import TLS, Key
from .wire._making import main, makeKey, makePair

__all__ = ["TLS", "Key", "makeKey", "makePair"]

if __name__ == "__main__":
    sys.exit(main())
