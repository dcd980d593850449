"""The types of the results of calls, by what is called."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred

from ..iteration import Deferator
from ._maps import MapOptions, Maps
from ._options import RetryDelay

if TYPE_CHECKING:
    from typing_extensions import Unpack

_P = ParamSpec("_P")
_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")

#: What is certainly neither an iterator nor a coroutine.
_Plain = TypeVar("_Plain", bound="int | float | complex | Sized | None")


class TypedCalls(Maps):
    """
    Says what type the result of a call has.

    Nothing is said of the arguments: no type can have both those of the callable and
    the queue's own keywords. With C{functools.partial}, they are checked.
    """

    # The first two of each pair that could match say Callable[_P, ...], not (...): else
    # an overloaded function that returns Any for some arguments, such as pow, would
    # match all, and mypy would take the result for Any.

    if TYPE_CHECKING:

        @overload  # type: ignore[override]  # it takes anything there
        def call(
            self, f: Callable[_P, _Plain], /, *args: _P.args, **kw: _P.kwargs
        ) -> Deferred[_Plain]: ...
        @overload
        def call(
            self,
            f: Callable[_P, Coroutine[Any, Any, _T] | Deferred[_T]],
            /,
            *args: Any,
            niceness: int = 0,
            series: Hashable = None,
            doNext: bool = False,
            doLast: bool = False,
            timeout: float | None = None,
            within: float | None = None,
            retries: int | None = None,
            retryDelay: RetryDelay | None = None,
            returnFailure: bool | None = ...,
            name: str | None = ...,
            raw: bool | None = None,
            consumer: None = None,
            **kw: Any,
        ) -> Deferred[_T]: ...
        @overload
        def call(
            self,
            f: Callable[_P, Iterator[_T]],
            /,
            *args: Any,
            niceness: int = 0,
            series: Hashable = None,
            doNext: bool = False,
            doLast: bool = False,
            timeout: float | None = None,
            within: float | None = None,
            retries: int | None = None,
            retryDelay: RetryDelay | None = None,
            returnFailure: bool | None = ...,
            name: str | None = ...,
            raw: Literal[False] | None = None,
            consumer: None = None,
            **kw: Any,
        ) -> Deferred[Deferator[_T]]: ...
        @overload
        def call(
            self,
            f: Callable[..., _T],
            /,
            *args: Any,
            niceness: int = 0,
            series: Hashable = None,
            doNext: bool = False,
            doLast: bool = False,
            timeout: float | None = None,
            within: float | None = None,
            retries: int | None = None,
            retryDelay: RetryDelay | None = None,
            returnFailure: bool | None = ...,
            name: str | None = ...,
            raw: bool | None = None,
            consumer: None = None,
            **kw: Any,
        ) -> Deferred[_T]: ...
        @overload
        def call(
            self,
            f: Callable[..., Any] | str,
            /,
            *args: Any,
            niceness: int = 0,
            series: Hashable = None,
            doNext: bool = False,
            doLast: bool = False,
            timeout: float | None = None,
            within: float | None = None,
            retries: int | None = None,
            retryDelay: RetryDelay | None = None,
            returnFailure: bool | None = ...,
            name: str | None = ...,
            raw: bool | None = None,
            consumer: _T,
            **kw: Any,
        ) -> Deferred[_T]: ...
        @overload
        def call(
            self,
            f: str,
            /,
            *args: Any,
            niceness: int = 0,
            series: Hashable = None,
            doNext: bool = False,
            doLast: bool = False,
            timeout: float | None = None,
            within: float | None = None,
            retries: int | None = None,
            retryDelay: RetryDelay | None = None,
            returnFailure: bool | None = ...,
            name: str | None = ...,
            raw: bool | None = None,
            consumer: None = None,
            **kw: Any,
        ) -> Deferred[Any]: ...
        def call(self, f: Any, /, *args: Any, **kw: Any) -> Any: ...

        @overload  # type: ignore[override]  # it takes anything there
        def map(
            self, f: str, /, *iterables: Iterable[Any], **options: Unpack[MapOptions]
        ) -> Deferred[list[Any]]: ...
        @overload
        def map(
            self,
            f: Callable[[_A], _T],
            first: Iterable[_A],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferred[list[_T]]: ...
        @overload
        def map(
            self,
            f: Callable[[_A, _B], _T],
            first: Iterable[_A],
            second: Iterable[_B],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferred[list[_T]]: ...
        @overload
        def map(
            self,
            f: Callable[[_A, _B, _C], _T],
            first: Iterable[_A],
            second: Iterable[_B],
            third: Iterable[_C],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferred[list[_T]]: ...
        @overload
        def map(
            self,
            f: Callable[..., _T],
            first: Iterable[Any],
            second: Iterable[Any],
            third: Iterable[Any],
            fourth: Iterable[Any],
            /,
            *iterables: Iterable[Any],
            **options: Unpack[MapOptions],
        ) -> Deferred[list[_T]]: ...
        def map(self, f: Any, /, *iterables: Any, **options: Any) -> Any: ...

        @overload  # type: ignore[override]  # it takes anything there
        def imap(
            self, f: str, /, *iterables: Iterable[Any], **options: Unpack[MapOptions]
        ) -> Deferator[Any]: ...
        @overload
        def imap(
            self,
            f: Callable[[_A], _T],
            first: Iterable[_A],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferator[_T]: ...
        @overload
        def imap(
            self,
            f: Callable[[_A, _B], _T],
            first: Iterable[_A],
            second: Iterable[_B],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferator[_T]: ...
        @overload
        def imap(
            self,
            f: Callable[[_A, _B, _C], _T],
            first: Iterable[_A],
            second: Iterable[_B],
            third: Iterable[_C],
            /,
            **options: Unpack[MapOptions],
        ) -> Deferator[_T]: ...
        @overload
        def imap(
            self,
            f: Callable[..., _T],
            first: Iterable[Any],
            second: Iterable[Any],
            third: Iterable[Any],
            fourth: Iterable[Any],
            /,
            *iterables: Iterable[Any],
            **options: Unpack[MapOptions],
        ) -> Deferator[_T]: ...
        def imap(self, f: Any, /, *iterables: Any, **options: Any) -> Any: ...
