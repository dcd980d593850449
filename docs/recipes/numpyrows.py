"""Shares an array out to children, and has them stream arrays back."""

import numpy as np
from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from asynqueue import ProcessQueue


def spectrum(samples):
    """Compute the power spectrum of some samples."""
    return np.abs(np.fft.rfft(samples)) ** 2


def frames(n, size):
    """Generate arrays, one after the other."""
    for i in range(n):
        yield np.full((size, size), i, dtype=np.float32)


async def main(reactor):
    signal = np.sin(np.arange(4 * 2**20) / 10)
    async with ProcessQueue(2) as q:
        parts = np.split(signal, 4)  # Views: nothing is copied yet.
        spectra = await gatherResults([q.call(spectrum, part) for part in parts])
        print(sum(spectra).argmax())

        async for frame in await q.call(frames, 3, 1024):
            print(frame.shape, frame.mean())


if __name__ == "__main__":
    react(main)
