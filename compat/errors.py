"""
The error that everything here raises. It's in a module of its own as all others use it.
"""

from __future__ import annotations

__all__ = ["CheckError"]


class CheckError(Exception):
    """
    The check can't be made: something needed is missing, or isn't what it should be.
    """
