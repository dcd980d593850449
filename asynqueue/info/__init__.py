"""Text about calls and their failures."""

from __future__ import annotations

from ._info import Info, InfoHolder
from ._objects import Converter, hashIt
from ._show import showResult, whichThread

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]
