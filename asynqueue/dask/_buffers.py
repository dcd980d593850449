"""
Large buffers of calls: they're copied, so that later changes can't be seen, and brought
to the cluster once for all calls that have the same.

All of it runs in the loop of the worker's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pickle import PickleBuffer
from typing import Any

from .._child.parcels import Parcel
from .._child.pickling import Buffer, copyOf, flat

#: What has fewer bytes is copied at once, which takes some 100 microseconds.
_MAX_SYNC_COPY = 1 << 20

#: So many bytes are copied before others have their turn. The interpreter's lock is
#: held meanwhile.
_CHUNK = 1 << 22

#: Buffers of more bytes go to a worker directly, ahead of the call: the scheduler would
#: have them in its memory, and warns of more than 10 MB.
MIN_SCATTERED = 1 << 23

#: Seconds until it's believed that there's no way to the workers but by the scheduler.
_PROBE_SECONDS = 3.0


def isSmall(parcel: Parcel) -> bool:
    """Tell whether the buffers of a call may be copied in the reactor's thread."""
    return sum(_size(buffer) for buffer in parcel.buffers) <= _MAX_SYNC_COPY


def copied(parcel: Parcel) -> Parcel:
    """Copy the small buffers of a call."""
    return Parcel(parcel.pickle, [_copied(buffer) for buffer in parcel.buffers])


class Copy:
    """A large buffer of one or several calls."""

    def __init__(self, key: tuple[type, int, int], buffer: Buffer) -> None:
        # What it was made of: its kind, identity and size.
        self.key = key
        # How many calls have it, or look whether it's what they have.
        self.users = 0
        # Copies it; fires with the copy, or with the C{bytes} themselves.
        self.copying = asyncio.create_task(_copyInChunks(buffer))
        # Brings it to the cluster; fires with Dask's future.
        self.scattering: asyncio.Task[object] | None = None


class Scattering:
    """The large buffers that calls have now."""

    # _copies has them by the kind, identity and size of what they were made of, which
    # is but a hint: the contents are compared.

    def __init__(self, client: Any) -> None:
        self._client = client
        self._copies: dict[tuple[type, int, int], Copy] = {}
        # Whether workers can be reached without the scheduler, if it's known.
        self._isDirect: bool | None = None

    async def hold(
        self, parcel: Parcel, isWhole: bool = False
    ) -> tuple[Parcel, dict[int, Copy]]:
        """
        Copy the buffers of a call. Gives the call with its small ones, and the large
        ones by their places among all, which are to be released. If it's to stay whole,
        all count as small.
        """
        small: list[Buffer] = []
        large: dict[int, Copy] = {}
        try:
            for place, buffer in enumerate(parcel.buffers):
                if isWhole or _size(buffer) < MIN_SCATTERED:
                    small.append(_copied(buffer))
                else:
                    large[place] = await self._copyOf(buffer)
        except BaseException:  # it's cancelled, or there's no memory
            self.release(large)
            raise
        return Parcel(parcel.pickle, small), large

    def release(self, copies: dict[int, Copy]) -> None:
        """Forget the buffers of a call."""
        for copy in copies.values():
            self._release(copy)

    def places(self, copies: dict[int, Copy]) -> tuple[tuple[int, bool], ...]:
        """
        Tell where the buffers of a call belong that is being sent, and which of them
        are to be copied there: those that others have as well, and could see changed;
        and those of C{bytearray}s, which come as views. No others will have the rest.
        """
        found = []
        for place, copy in copies.items():
            if copy.users == 1:
                self._forget(copy)
            kind = copy.key[0]
            isShared = copy.users > 1 and kind is not bytes
            found.append((place, isShared or kind is bytearray))
        return tuple(found)

    def renew(self, copy: Copy) -> None:
        """Have a buffer be brought to the cluster again when it's needed."""
        scattering, copy.scattering = copy.scattering, None
        if scattering is not None:
            scattering.cancel()  # Dask's future is released with it.

    async def scatter(self, copy: Copy) -> object:
        """Bring a buffer to the cluster, unless it's there. Gives Dask's future."""
        if copy.scattering is None:
            copy.scattering = asyncio.create_task(self._scatter(copy))
        return await asyncio.shield(copy.scattering)

    async def isDirect(self) -> bool:
        """Find out whether workers can be reached without the scheduler."""
        if self._isDirect is None:
            self._isDirect = False
            with suppress(OSError, asyncio.TimeoutError):
                probe = self._client.scatter(Parcel(b"", []), direct=True, hash=False)
                await asyncio.wait_for(probe, _PROBE_SECONDS)
                self._isDirect = True
        return self._isDirect

    async def _scatter(self, copy: Copy) -> object:
        data = await copy.copying
        # A view of the copy isn't copied again when it has arrived.
        buffer = data if isinstance(data, bytes) else PickleBuffer(data)
        return await self._client.scatter(
            Parcel(b"", [buffer]), direct=await self.isDirect(), hash=False
        )

    async def _copyOf(self, buffer: Buffer) -> Copy:
        key = type(buffer), _identity(buffer), _size(buffer)
        found = self._copies.get(key)
        if found is not None:
            with self._using(found):
                if await _isEqual(await asyncio.shield(found.copying), buffer):
                    return found
            self._release(found)
        copy = self._copies[key] = Copy(key, buffer)
        with self._using(copy):
            await asyncio.shield(copy.copying)
        return copy

    @contextmanager
    def _using(self, copy: Copy) -> Iterator[None]:
        """Count a user of a copy, but not if this fails."""
        copy.users += 1
        try:
            yield
        except BaseException:
            self._release(copy)
            raise

    def _release(self, copy: Copy) -> None:
        copy.users -= 1
        if not copy.users:
            self._forget(copy)
            self.renew(copy)
            copy.copying.cancel()

    def _forget(self, copy: Copy) -> None:
        if self._copies.get(copy.key) is copy:
            del self._copies[copy.key]


async def _copyInChunks(buffer: Buffer) -> bytes | bytearray:
    if isinstance(buffer, bytes):
        return buffer
    with flat(buffer) as view:
        copy = bytearray()  # of full size, it would be filled with zeros first
        for start in range(0, view.nbytes, _CHUNK):
            copy += view[start : start + _CHUNK]
            await asyncio.sleep(0)
    return copy


async def _isEqual(data: bytes | bytearray, buffer: Buffer) -> bool:
    """
    Compare contents. Of two views, each byte would be an object: 0.7 s for 128 MiB,
    where this takes 75 ms.
    """
    if data is buffer:
        return True
    with memoryview(data) as whole, flat(buffer) as view:
        for start in range(0, view.nbytes, _CHUNK):
            if bytearray(whole[start : start + _CHUNK]) != view[start : start + _CHUNK]:
                return False
            await asyncio.sleep(0)
    return True


def _identity(buffer: Buffer) -> int:
    if isinstance(buffer, (bytes, bytearray)):
        return id(buffer)
    with flat(buffer) as view:
        return id(view.obj)


def _size(buffer: Buffer) -> int:
    with flat(buffer) as view:
        return view.nbytes


def _copied(buffer: Buffer) -> Buffer:
    if isinstance(buffer, bytes):
        return buffer
    if isinstance(buffer, bytearray):
        return bytearray(buffer)
    with flat(buffer) as view:
        return PickleBuffer(copyOf(view))
