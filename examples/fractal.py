"""
The Mandelbrot set, as numbers and colours: what the workers of C{mandelbrot.py} do.

It's in a module of its own because that is all that the children import: they are ready
sooner without what only the program itself needs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

#: Where |z|^2 is larger, the point has escaped. 4 would do; this makes smooth colours.
BAILOUT = 2.0**16


class View(NamedTuple):
    """
    What is to be seen. It goes to the children with each call.

    @ivar size: Width and height of the picture, in pixels.

    @ivar center: The point of the complex plane that is in the middle.

    @ivar width: The width of the part of the plane that is seen.

    @ivar iterations: After so many, a point that hasn't escaped is in the set.

    @ivar samples: Each pixel is the mean of the square of so many samples.
    """

    size: tuple[int, int]
    center: complex
    width: float
    iterations: int
    samples: int


def escapeTimes(x: np.ndarray, y: np.ndarray, iterations: int) -> np.ndarray:
    """
    Count the iterations, with fractions, after which points escape. Counts are above 0,
    but 0 for points in the set.
    """
    times = np.zeros(x.size)
    # The largest cardioid and the largest circle, where nothing would ever escape.
    q = (x - 0.25) ** 2 + y**2
    inside = (q * (q + x - 0.25) <= y**2 / 4) | ((x + 1) ** 2 + y**2 <= 1 / 16)
    where = np.flatnonzero(~inside)
    state = np.zeros((6, where.size))
    state[4], state[5] = x[where], y[where]
    zx, zy, xx, yy, cx, cy = state
    parked = 0
    for n in range(1, iterations + 1):
        # z = z * z + c, in place, with the squares kept for the next time.
        zy *= zx
        zy += zy
        zy += cy
        np.subtract(xx, yy, out=zx)
        zx += cx
        np.multiply(zx, zx, out=xx)
        np.multiply(zy, zy, out=yy)
        norm = xx + yy
        escaped = np.flatnonzero(norm > BAILOUT)
        if escaped.size:
            smooth = np.log2(np.log(norm[escaped]) / math.log(BAILOUT))
            times[where[escaped]] = np.maximum(n - smooth, 1e-3)
            # To take points out each time would cost more than it saves. They are put
            # where nothing happens, until there are enough of them.
            where[escaped] = -1
            state[:, escaped] = 0
            parked += escaped.size
            if parked * 8 > where.size:
                stay = where >= 0
                where, state, parked = where[stay], state[:, stay], 0
                zx, zy, xx, yy, cx, cy = state
                if not where.size:
                    break
    return times


#: The cycle of colours: blue, white, amber, black, and where each is.
STOPS = [0, 0.16, 0.42, 0.6425, 0.8575, 1]
COLOURS = [(0, 7, 100), (32, 107, 203), (237, 255, 255), (255, 170, 0), (0, 2, 0)]


def makePalette(length: int = 4096) -> np.ndarray:
    """
    Make so many colours in between: an array of RGB rows, of light intensities from 0
    to 1.
    """
    at = np.arange(length) / length
    channels = zip(*COLOURS, COLOURS[0], strict=True)
    palette: np.ndarray = np.stack(
        [np.interp(at, STOPS, channel) for channel in channels], axis=1
    )
    palette = (palette / 255) ** 2.2
    return palette.astype(np.float32)


PALETTE = makePalette()


def colour(times: np.ndarray) -> np.ndarray:
    """
    Give points their colours by their escape times: an array of RGB rows, black for
    points in the set.
    """
    outside = times > 0
    # The logarithm keeps the bands about equally wide, however near to the set. Far
    # away from it, it's night.
    phase = 0.42 * np.log2(times, where=outside, out=np.zeros_like(times)) + 0.02
    phase = np.maximum(phase, STOPS[4])
    light: np.ndarray = PALETTE[(phase * len(PALETTE)).astype(int) % len(PALETTE)]
    light[~outside] = 0
    return light


def renderStrip(view: View, top: int, rows: int) -> bytes:
    """Render some rows of the picture: scan lines of a PNG file."""
    columns, height = view.size
    n = view.samples
    step = view.width / (columns * n)
    across = (np.arange(columns * n) - (columns * n - 1) / 2) * step
    down = (np.arange(top * n, (top + rows) * n) - (height * n - 1) / 2) * step
    x = np.tile(view.center.real + across, rows * n)
    y: np.ndarray = np.repeat(view.center.imag - down, columns * n)
    light = colour(escapeTimes(x, y, view.iterations))
    # The mean is taken of light intensities, not of the numbers that stand for them.
    light = light.reshape(rows, n, columns, n, 3).mean(axis=(1, 3))
    pixels = np.rint(255 * light ** (1 / 2.2)).astype(np.uint8)
    # Each line starts with its filter's number: 1, differences to the pixel before.
    lines: np.ndarray = np.ones((rows, 1 + 3 * columns), np.uint8)
    lines[:, 1:4] = pixels[:, 0]
    lines[:, 4:] = np.diff(pixels, axis=1).reshape(rows, -1)
    return lines.tobytes()
