"""
What workers and servers on a network know one another by, and the making of it.

C{python -m asynqueue.credentials pair FOLDER} makes certificates for a server and its
clients, C{python -m asynqueue.credentials key FILE} a key for one machine.
"""

import sys

from ._wire.keys import Key
from ._wire.making import main, makeKey, makePair
from ._wire.tls import TLS

__all__ = ["TLS", "Key", "makeKey", "makePair"]

if __name__ == "__main__":
    sys.exit(main())
