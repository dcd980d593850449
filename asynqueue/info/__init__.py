"""Text about calls and what becomes of them, and what helps to find out about calls."""

from __future__ import annotations

from ._info import Info, InfoHolder
from ._objects import Converter, hashIt
from ._show import showResult, whichThread

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]
