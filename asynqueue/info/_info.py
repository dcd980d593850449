"""Text about calls, and about what they have raised."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar, cast

from .._child.describe import callText, describe, errorText, failureText, nameOf
from ._objects import Converter

_T = TypeVar("_T")

#: So many calls can be told about though they're not to be remembered.
_MAX_RECENT = 100


#: Stands for a parameter that wasn't given.
_UNSET = object()


class _CallEntry:
    """What is known of a call."""

    def __init__(self, text: str, callDict: dict[str, object] | None = None) -> None:
        self.text = text
        # See getInfo; None when it has been let go.
        self.callDict = callDict
        # By name.
        self.saved: dict[str, object] = {}


class InfoHolder:
    """
    An L{Info} for one call: what L{Info.context} gives. Its methods do as those of
    L{Info}, for that call.
    """

    def __init__(self, info: Info, ID: int) -> None:
        self.info = info
        self.ID = ID

    def getInfo(self, name: str) -> Any:
        """See L{Info.getInfo}."""
        return self.info.getInfo(self.ID, name)

    def nn(self, raw: bool = False) -> tuple[object, object]:
        """See L{Info.nn}."""
        return self.info.nn(self.ID, raw)

    def aboutCall(self) -> str:
        """See L{Info.aboutCall}."""
        return self.info.aboutCall(self.ID)

    def aboutException(self, exception: BaseException | None = None) -> str:
        """See L{Info.aboutException}."""
        return self.info.aboutException(self.ID, exception)

    def aboutFailure(self, failureObj: object) -> str:
        """See L{Info.aboutFailure}."""
        return self.info.aboutFailure(failureObj, self.ID)


class Info:
    """
    Tells about calls, each of which gets an ID when it's made known by L{setCall}.

    Any number of threads may use one instance. A call's arguments are held only until
    the same thread makes its next call known; text about it can be had until a hundred
    others have come. Calls that are to be remembered, and those for which something is
    saved, are held until they are forgotten.

    Telling never raises, whatever the objects are like, and texts are bounded.

    Methods that take the C{ID} of a call are by default about the current one, see
    L{ID}. With C{nowForget}, it's forgotten then.

    @ivar pastInfo: What is remembered, by ID.
    """

    def __init__(self, remember: bool = False, whichThread: bool = False) -> None:
        """
        Know of no call.

        @param remember: C{True} to hold all calls until they're forgotten.

        @param whichThread: C{True} for texts to name the thread in which the call was
            made known.
        """
        self.remember = remember
        self.whichThread = whichThread
        self.pastInfo: dict[int, _CallEntry] = {}
        # Those that aren't remembered, the oldest first.
        self._recent: dict[int, _CallEntry] = {}
        self._latest: int | None = None
        # Its attribute ID is that of the thread's current call.
        self._thread = threading.local()
        # For what is above. Reentrant: what is let go under it may have a finalizer
        # that comes back here.
        self._lock = threading.RLock()

    @property
    def ID(self) -> int | None:
        """
        The ID of the last call that this thread has made known; if it hasn't made any,
        of the last of all. C{None} if there was none.
        """
        return cast("int | None", getattr(self._thread, "ID", self._latest))

    def setCall(
        self,
        f: object = _UNSET,
        args: object = _UNSET,
        kw: object = _UNSET,
        instance: object = _UNSET,
    ) -> Info:
        """
        Make a call known. From then on it's the current one of this thread. Without
        C{f}, say more of the current one.

        @param f: The callable, or a C{str} that stands for one elsewhere.

        @param args: Its arguments. What is neither a tuple nor a list is taken for a
            single argument.

        @param kw: Its keywords. What isn't a dict is taken for another argument.

        @param instance: What it's a method of, which is told before its name.

        @return: This instance. Its L{ID} is that of the call.

        @raise ValueError: If there's neither a callable nor a current call.
        """
        callDict: dict[str, object] = {"f": f, "args": (), "kw": {}, "instance": None}
        current = self._entry(None) if f is _UNSET else None
        if f is _UNSET:
            if current is None or current.callDict is None:
                raise ValueError("No call to say more of: give f, the callable")
            callDict = {**current.callDict}
        if args is not _UNSET:
            isArgs = issubclass(type(args), (tuple, list))
            callDict["args"] = args if isArgs else [args]
        if kw is not _UNSET:
            callDict["kw"] = {} if kw is None else kw
        if instance is not _UNSET:
            callDict["instance"] = instance
        callDict["fs"] = nameOf(callDict["f"])
        if self.whichThread:
            callDict.setdefault("thread", threading.current_thread().name)
        text = _textOf(callDict)
        if current is None:
            self._add(_CallEntry(text, callDict))
        else:
            current.text, current.callDict = text, callDict
        return self

    def aboutCall(self, ID: int | None = None, nowForget: bool = False) -> str:
        """Tell about a call, like C{f(1, x=2)}: nothing if there's no such call."""
        entry = self._entry(ID)
        if nowForget:
            self.forgetID(ID)
        return "" if entry is None else entry.text

    def aboutException(
        self,
        ID: int | None = None,
        exception: BaseException | None = None,
        nowForget: bool = False,
    ) -> str:
        """
        Tell about an exception that a call has raised, by default the one being
        handled.

        @return: Text that begins C{Exception '<message>'}, names the call, and has the
            traceback.
        """
        call = self.aboutCall(ID, nowForget)
        error = exception if exception is not None else sys.exc_info()[1]
        if error is None:
            return f"Exception '' (none is being handled) in {call}"
        return errorText(error, call)

    def aboutFailure(
        self,
        failureObj: object,
        ID: int | None = None,
        nowForget: bool = False,
    ) -> str:
        """Tell about the failure of a call, as L{aboutException} does."""
        return failureText(failureObj, self.aboutCall(ID, nowForget))

    def nn(self, ID: int | None = None, raw: bool = False) -> tuple[object, object]:
        """
        Tell by which names a call's callable can be had elsewhere.

        @param raw: C{True} for objects as they are, rather than what
            L{Converter.processObject} makes of them.

        @return: A pair of namespace and name. For a method it's the object that it's
            bound to, and its name as a C{str}; for another callable, C{None} and the
            callable. Both are C{None} if there's no such thing.
        """
        callDict = self.getInfo(ID, "callDict")
        if callDict is None:
            return None, None
        f = callDict["f"]
        if issubclass(type(f), str):
            return None, f
        convert = Converter.processObject
        owner, name = _bound(f)
        if owner is None:
            return None, f if raw else convert(f)
        namespace = owner if raw else convert(owner)
        return (None, None) if namespace is None else (namespace, name)

    def getInfo(self, ID: int | None, name: str, nowForget: bool = False) -> Any:
        """
        Get what is known of a call.

        @param name: C{'callDict'} for the call itself, a dict with keys C{f}, C{fs}
            (the name of C{f}), C{args} (a list or tuple), C{kw}, C{instance} and, with
            C{whichThread}, C{thread}; or a name given to L{saveInfo}.

        @return: It, or C{None} if it isn't known any longer, or never was.
        """
        entry = self._entry(ID)
        if entry is None:
            return None
        with self._lock:
            found = entry.saved.get(name)
            if found is None and name == "callDict":
                found = entry.callDict
        if nowForget:
            self.forgetID(ID)
        return found

    def saveInfo(self, name: str, x: _T, ID: int | None = None) -> _T:
        """
        Save something about a call, by a name for L{getInfo}. The call is held then
        until it's forgotten. It needn't be known any longer.

        @return: What was saved.

        @raise ValueError: If there's no current call, and no ID was given.
        """
        if ID is None:
            ID = self.ID
        if ID is None:
            raise ValueError(
                f"No call to save {name!r} for: use setCall, or give an ID"
            )
        with self._lock:
            entry = (
                self.pastInfo.get(ID) or self._recent.pop(ID, None) or _CallEntry("")
            )
            self.pastInfo[ID] = entry
            entry.saved[name] = x
        return x

    def forgetID(self, ID: int | None = None) -> None:
        """Forget a call, if it's known, and whatever was saved for it."""
        if ID is None:
            ID = self.ID
        with self._lock:
            if ID is not None:
                self.pastInfo.pop(ID, None)
                self._recent.pop(ID, None)

    @contextmanager
    def context(
        self,
        f: object,
        args: object = _UNSET,
        kw: object = _UNSET,
        instance: object = _UNSET,
    ) -> Iterator[InfoHolder]:
        """
        Make a call known for as long as a C{with} block lasts. It's held so long,
        whatever other calls are made known, and then forgotten, with what was saved for
        it. The parameters are those of L{setCall}.

        @return: A context manager that gives an L{InfoHolder}.
        """
        ID = cast(int, self.setCall(f, args, kw, instance).ID)
        with self._lock:
            if not self.remember:
                self.pastInfo[ID] = self._recent.pop(ID)
        try:
            yield InfoHolder(self, ID)
        finally:
            self.forgetID(ID)

    def _add(self, entry: _CallEntry) -> None:
        with self._lock:
            last = self._recent.get(getattr(self._thread, "ID", 0))
            if last is not None:
                last.callDict = None
            self._latest = self._thread.ID = (self._latest or 0) + 1
            if self.remember:
                self.pastInfo[self._latest] = entry
            else:
                self._recent[self._latest] = entry
                if len(self._recent) > _MAX_RECENT:
                    del self._recent[next(iter(self._recent))]

    def _entry(self, ID: int | None) -> _CallEntry | None:
        """Find what is known of a call, C{None} for the current one."""
        if ID is None:
            ID = self.ID
        if ID is None:
            return None
        with self._lock:
            return self.pastInfo.get(ID) or self._recent.get(ID)


def _textOf(callDict: dict[str, Any]) -> str:
    """Describe a call."""
    f, instance = callDict["f"], callDict["instance"]
    text = callText(f, callDict["args"], callDict["kw"])
    name = callDict["fs"]
    if not issubclass(type(f), str) and not callable(f):
        text = f"{name}[Not Callable!]{text.removeprefix(name)}"
    if instance is not None:
        method = name.rpartition(".")[2]
        text = f"{describe(instance)}.{method}{text.removeprefix(name)}"
    if "thread" in callDict:
        text = f"{text} in thread {callDict['thread']!r}"
    return text


def _bound(f: Any) -> tuple[object, str | None]:
    """
    Find what a method is bound to, and its name. Both are C{None} if it isn't one.
    """
    try:
        owner, name = f.__self__, f.__name__
    except BaseException:  # noqa: BLE001 - runs __getattr__ of users
        return None, None
    # Functions of built-in modules are bound to these.
    if issubclass(type(owner), ModuleType) or not isinstance(name, str):
        return None, None
    return owner, name
