"""
Text about calls and what becomes of them, and what helps to find out about calls.

Children import this when they start, so it imports nothing but the standard library.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

from ._child.describe import (
    callText,
    describe,
    errorText,
    failureText,
    isDeferred,
    message,
    nameOf,
)

__all__ = ["Converter", "Info", "hashIt", "showResult", "whichThread"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: So many calls can be told about though they're not to be remembered.
_MOST_RECENT = 100

#: Hashes depend on what is in so many levels of containers.
_MOST_LEVELS = 50


class _Entry:
    """
    What is known of a call.

    @ivar callDict: The call itself, with keys C{f}, C{fs} (the name of C{f}), C{args}
        and C{kw}; C{None} when it has been let go.

    @ivar text: The call as text.

    @ivar saved: What else has been saved, by name.
    """

    def __init__(self, text: str, callDict: dict[str, Any] | None = None) -> None:
        """
        Make an entry.

        @param text: The call as text.

        @param callDict: The call.
        """
        self.text = text
        self.callDict = callDict
        self.saved: dict[str, Any] = {}


class _CallInfo:
    """
    What L{Info.context} gives: an L{Info} for one call.

    @ivar ID: The ID of the call.
    """

    def __init__(self, info: Info, ID: int) -> None:
        """
        Make it.

        @param info: What it's about.

        @param ID: The ID of the call.
        """
        self.ID = ID
        self._info = info

    def aboutCall(self) -> str:
        """
        Tell about the call, see L{Info.aboutCall}.

        @return: Text.
        """
        return self._info.aboutCall(self.ID)

    def aboutException(self, exception: BaseException | None = None) -> str:
        """
        Tell about an exception of the call, see L{Info.aboutException}.

        @param exception: The exception, by default the one being handled.

        @return: Text.
        """
        return self._info.aboutException(self.ID, exception)

    def aboutFailure(self, failure: Any) -> str:
        """
        Tell about a failure of the call, see L{Info.aboutFailure}.

        @param failure: The failure.

        @return: Text.
        """
        return self._info.aboutFailure(failure, self.ID)

    def getInfo(self, name: str) -> Any:
        """
        Get what is known of the call, see L{Info.getInfo}.

        @param name: The name of the information.

        @return: It.
        """
        return self._info.getInfo(self.ID, name)


class Info:
    """
    Tells about calls, each of which gets an ID when it's made known by L{setCall}.

    Any number of threads may use one instance. A call's arguments are held only until
    the same thread makes its next call known; text about it can be had until a hundred
    others have come. Calls that are to be remembered, and those for which something is
    saved, are held until they are forgotten.

    Telling never raises, whatever the objects are like, and texts are bounded.

    @ivar remember: See L{__init__}.

    @ivar whichThread: See L{__init__}.

    @ivar pastInfo: What is remembered, by ID.
    """

    def __init__(self, remember: bool = False, whichThread: bool = False) -> None:
        """
        Make an instance that knows of no call.

        @param remember: C{True} to hold all calls until they're forgotten.

        @param whichThread: C{True} for texts to name the thread in which the call was
            made known.
        """
        self.remember = remember
        self.whichThread = whichThread
        self.pastInfo: dict[int, _Entry] = {}
        self._recent: dict[int, _Entry] = {}
        self._latest: int | None = None
        self._thread = threading.local()
        # Reentrant: what is let go under it may have a finalizer that comes back here.
        self._lock = threading.RLock()

    @property
    def ID(self) -> int | None:
        """
        The ID of the last call that this thread has made known; if it hasn't made any,
        of the last of all. C{None} if there was none.
        """
        return cast("int | None", getattr(self._thread, "ID", self._latest))

    def setCall(self, f: Any, args: Any = (), kw: Any = None) -> Info:
        """
        Make a call known. From then on it's the current one of this thread.

        @param f: The callable, or a C{str} that stands for one elsewhere.

        @param args: Its arguments. What is neither a tuple nor a list is taken for a
            single argument.

        @param kw: Its keywords. What isn't a dict is taken for another argument.

        @return: This instance. Its L{ID} is that of the call.
        """
        text = callText(f, args, kw)
        if self.whichThread:
            text = f"{text} in thread {threading.current_thread().name!r}"
        callDict = {
            "f": f,
            "fs": nameOf(f),
            "args": args,
            "kw": {} if kw is None else kw,
        }
        entry = _Entry(text, callDict)
        with self._lock:
            last = self._recent.get(getattr(self._thread, "ID", 0))
            if last is not None:
                last.callDict = None
            self._latest = self._thread.ID = (self._latest or 0) + 1
            if self.remember:
                self.pastInfo[self._latest] = entry
            else:
                self._recent[self._latest] = entry
                if len(self._recent) > _MOST_RECENT:
                    del self._recent[next(iter(self._recent))]
        return self

    def aboutCall(self, ID: int | None = None, nowForget: bool = False) -> str:
        """
        Tell about a call.

        @param ID: The ID of the call, by default of the current one.

        @param nowForget: C{True} to forget it then.

        @return: Text like C{f(1, x=2)}.
        """
        entry = self._entry(ID)
        if nowForget:
            self.forgetID(ID)
        return "an unknown call" if entry is None else entry.text

    def aboutException(
        self,
        ID: int | None = None,
        exception: BaseException | None = None,
        nowForget: bool = False,
    ) -> str:
        """
        Tell about an exception that a call has raised.

        @param ID: The ID of the call, by default of the current one.

        @param exception: The exception, by default the one being handled.

        @param nowForget: C{True} to forget the call then.

        @return: Text that begins C{Exception '<message>'}, names the call, and has the
            traceback.
        """
        call = self.aboutCall(ID, nowForget)
        error = exception if exception is not None else sys.exc_info()[1]
        if error is None:
            return f"Exception '' (none is being handled) in {call}"
        return errorText(error, call)

    def aboutFailure(
        self, failure: Any, ID: int | None = None, nowForget: bool = False
    ) -> str:
        """
        Tell about the failure of a call.

        @param failure: The L{Failure<twisted.python.failure.Failure>}.

        @param ID: The ID of the call, by default of the current one.

        @param nowForget: C{True} to forget the call then.

        @return: Text as from L{aboutException}.
        """
        return failureText(failure, self.aboutCall(ID, nowForget))

    def nn(self, ID: int | None = None, raw: bool = False) -> tuple[Any, Any]:
        """
        Tell by which names a call's callable can be had elsewhere.

        @param ID: The ID of the call, by default of the current one.

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

        @param ID: The ID of the call, C{None} for the current one.

        @param name: C{'callDict'} for the call itself, a dict with keys C{f}, C{fs}
            (the name of C{f}), C{args} and C{kw}; or a name given to L{saveInfo}.

        @param nowForget: C{True} to forget the call then.

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

    def saveInfo(self, name: str, value: Any, ID: int | None = None) -> None:
        """
        Save something about a call, which is held then until it's forgotten.

        @param name: A name to get it by, see L{getInfo}.

        @param value: What is to be saved.

        @param ID: The ID of the call, by default of the current one. If it isn't known
            any longer, there's nothing but what is saved.

        @raise ValueError: If there's no current call, and no ID was given.
        """
        if ID is None:
            ID = self.ID
        if ID is None:
            raise ValueError(
                f"No call to save {name!r} for: use setCall, or give an ID"
            )
        with self._lock:
            entry = self.pastInfo.get(ID) or self._recent.pop(ID, None)
            if entry is None:
                entry = _Entry("an unknown call")
            self.pastInfo[ID] = entry
            entry.saved[name] = value

    def forgetID(self, ID: int | None = None) -> None:
        """
        Forget a call, and whatever was saved for it. Nothing happens if it isn't known.

        @param ID: The ID of the call, by default of the current one.
        """
        if ID is None:
            ID = self.ID
        with self._lock:
            if ID is not None:
                self.pastInfo.pop(ID, None)
                self._recent.pop(ID, None)

    @contextmanager
    def context(self, f: Any, args: Any = (), kw: Any = None) -> Iterator[_CallInfo]:
        """
        Make a call known for as long as a C{with} block lasts. It's held so long,
        whatever other calls are made known, and then forgotten unless it's to be
        remembered, or something was saved for it.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: A context manager that gives an object with L{aboutCall},
            L{aboutException}, L{aboutFailure} and L{getInfo} for that call, without the
            parameter C{ID}.
        """
        ID = cast(int, self.setCall(f, args, kw).ID)
        with self._lock:
            if not self.remember:
                self.pastInfo[ID] = self._recent.pop(ID)
        try:
            yield _CallInfo(self, ID)
        finally:
            entry = self.pastInfo.get(ID)
            if not self.remember and entry is not None and not entry.saved:
                self.forgetID(ID)

    def _entry(self, ID: int | None) -> _Entry | None:
        """
        Find what is known of a call.

        @param ID: The ID of the call, C{None} for the current one.

        @return: It, or C{None}.
        """
        if ID is None:
            ID = self.ID
        if ID is None:
            return None
        with self._lock:
            return self.pastInfo.get(ID) or self._recent.get(ID)


def _bound(f: Any) -> tuple[Any, str | None]:
    """
    Find what a method is bound to.

    @param f: Any callable.

    @return: The object and the method's name. Both are C{None} if it isn't a method.
    """
    try:
        owner, name = f.__self__, f.__name__
    except BaseException:  # noqa: BLE001 - runs __getattr__ of users
        return None, None
    # Functions of built-in modules are bound to these.
    if issubclass(type(owner), ModuleType) or not isinstance(name, str):
        return None, None
    return owner, name


def hashIt(*args: Any) -> int:
    """
    Get a hash of any objects, also of those that have none.

    It's the same for equal objects, and almost certainly another one for others: it
    depends on the types, and on the order of arguments, and of items in lists and
    tuples. Containers and arrays count by what is in them. Like the hashes of strings,
    it's valid in this process only.

    @param args: The objects.

    @return: The hash.
    """
    return _hashed(args, ())


def _hashed(value: Any, above: tuple[int, ...]) -> int:
    """
    Get a hash of one object.

    @param value: The object.

    @param above: The C{id}s of the containers that it's in.

    @return: The hash.
    """
    kind = type(value)
    if id(value) in above or len(above) > _MOST_LEVELS:
        return hash((kind, len(above)))
    try:
        return hash((kind, _content(value, (*above, id(value)))))
    except BaseException:  # noqa: BLE001 - runs code of users
        return hash((kind, _substitute(value)))


def _content(value: Any, above: tuple[int, ...]) -> object:
    """
    Get something that has a hash, and stands for an object.

    @param value: The object.

    @param above: The C{id}s of the containers that it's in, and its own.

    @return: It.
    """
    if isinstance(value, list | tuple):
        return tuple([_hashed(item, above) for item in value])
    if isinstance(value, dict):
        pairs = [(_hashed(k, above), _hashed(v, above)) for k, v in value.items()]
        return tuple(sorted(pairs))
    if isinstance(value, set | frozenset):
        return tuple(sorted([_hashed(item, above) for item in value]))
    if isinstance(value, int | float):
        # The hashes of -1 and -2 are the same.
        return hash(value), value == -1
    return hash(value)


def _substitute(value: Any) -> object:
    """
    Get something that stands for an object without a hash.

    @param value: The object.

    @return: What is in its buffer if it's an array, else how it shows itself. If it
        can't, its C{id}.
    """
    try:
        view = memoryview(value)
        return view.format, view.shape, view.tobytes()
    except BaseException:  # noqa: BLE001 - most objects aren't arrays
        pass
    try:
        return hash(repr(value))
    except BaseException:  # noqa: BLE001 - runs __repr__ of users
        return id(value)


def showResult(f: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Decorate a function or method so that each call is printed to stdout with its
    result, or with what it has raised. If it returns a Deferred, that's done when the
    Deferred fires.

    Results, exceptions and failures are passed on as they are.

    @param f: The function.

    @return: The function that does so.

    @raise TypeError: If it isn't callable.
    """
    _checkCallable("showResult", f)

    @wraps(f)
    def shown(*args: _P.args, **kw: _P.kwargs) -> _T:
        text = callText(f, args, kw)
        try:
            result = f(*args, **kw)
        except BaseException as error:
            _show(f"{text} raised {_named(error)}")
            raise
        if isDeferred(result):
            cast(Any, result).addCallbacks(
                _showFired, _showFailed, callbackArgs=(text,), errbackArgs=(text,)
            )
        else:
            _showFired(result, text)
        return result

    return shown


def whichThread(f: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Decorate a function or method so that each call is printed to stdout with the name
    of the thread that it runs in.

    @param f: The function.

    @return: The function that does so.

    @raise TypeError: If it isn't callable.
    """
    _checkCallable("whichThread", f)

    @wraps(f)
    def shown(*args: _P.args, **kw: _P.kwargs) -> _T:
        name = threading.current_thread().name
        _show(f"{callText(f, args, kw)} in thread {name!r}")
        return f(*args, **kw)

    return shown


def _checkCallable(decorator: str, f: object) -> None:
    """
    Check what is to be decorated.

    @param decorator: The name of the decorator.

    @param f: The thing.

    @raise TypeError: If it isn't callable.
    """
    if isinstance(f, classmethod | staticmethod) or not callable(f):
        raise TypeError(
            f"{decorator} decorates functions, not {f!r}; with classmethod or"
            f" staticmethod, put {decorator} below it"
        )


def _show(text: str) -> None:
    """
    Print a line, whatever it has in it.

    @param text: The line.
    """
    stdout = sys.stdout
    # There may be none, and then it's None.
    if stdout:
        encoding = getattr(stdout, "encoding", None) or "utf-8"
        stdout.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def _showFired(result: _T, text: str) -> _T:
    """
    Print what a call has come to.

    @param result: The result.

    @param text: The call.

    @return: The result.
    """
    _show(f"{text} -> {describe(result)}")
    return result


def _showFailed(failure: _T, text: str) -> _T:
    """
    Print that a call has failed.

    @param failure: The failure.

    @param text: The call.

    @return: The failure.
    """
    _show(f"{text} failed with {_named(cast(Any, failure).value)}")
    return failure


def _named(error: BaseException) -> str:
    """
    Name an exception.

    @param error: The exception.

    @return: Its class and its message.
    """
    return f"{type(error).__name__}: {message(error)}"


class Converter:
    """
    Finds what an object can be sent as: its pickle, or its fully qualified name (FQN),
    by which it can be imported.
    """

    @staticmethod
    def strToFQN(x: str) -> str | None:
        """
        Find the FQN of what a name stands for, importing its module if need be.

        @param x: A dotted name, with that of the module.

        @return: The name under which it was defined, C{None} if there's no such thing,
            or it can't be had under that name.
        """
        found = _lookUp(x)
        return None if found is None else Converter.objToFQN(found)

    @staticmethod
    def objToPickle(x: object) -> bytes | None:
        """
        Pickle an object.

        @param x: The object.

        @return: Its pickle, C{None} if it can't be pickled or not be unpickled again.
        """
        import pickle

        try:
            pickled = pickle.dumps(x, 5)
            pickle.loads(pickled)
        except BaseException:  # noqa: BLE001 - runs __reduce__ of users
            return None
        return pickled

    @staticmethod
    def objToFQN(x: object) -> str | None:
        """
        Find the FQN of an object.

        @param x: A module, or a class or function.

        @return: Its FQN, C{None} if it can't be had under that name.
        """
        try:
            if issubclass(type(x), ModuleType):
                name = x.__name__  # type: ignore[attr-defined]
            else:
                name = f"{x.__module__}.{x.__qualname__}"  # type: ignore[attr-defined]
        except BaseException:  # noqa: BLE001 - runs __getattr__ of users
            return None
        return name if _lookUp(name) is x else None

    @staticmethod
    def processObject(x: object) -> bytes | str | None:
        """
        Find what an object can be sent as.

        @param x: The object.

        @return: Its pickle, else its FQN, else C{None}.
        """
        pickled = Converter.objToPickle(x)
        return Converter.objToFQN(x) if pickled is None else pickled


def _lookUp(name: object) -> Any:
    """
    Find what a dotted name stands for.

    @param name: The name.

    @return: It, C{None} if there's no such thing.
    """
    if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
        return None
    module, *rest = name.split(".")
    try:
        found: Any = import_module(module)
        for part in rest:
            module = f"{module}.{part}"
            if isinstance(found, ModuleType) and not hasattr(found, part):
                import_module(module)
            found = getattr(found, part)
    except BaseException:  # noqa: BLE001 - runs modules of users
        return None
    return found
