"""Text about calls and what becomes of them, and what helps to find out about calls."""

from __future__ import annotations

from ._converter import Converter
from ._hash import hashIt
from ._info import Info, InfoHolder
from ._show import showResult, whichThread

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]
