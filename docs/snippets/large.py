"""Has a child change something large, of which the program keeps its own."""

from twisted.internet.task import react

from asynqueue import ProcessQueue


def invert(image):
    """Invert an image where it is."""
    image[:] = image.translate(bytes(range(255, -1, -1)))
    return image


async def main(reactor):
    """Send an image to a child, and get it back inverted."""
    async with ProcessQueue(1) as q:
        image = bytearray(8 << 20)
        inverted = await q.call(invert, image)
        print(len(inverted), image[0], inverted[0])


if __name__ == "__main__":
    react(main)
