"""Shows the error of a call that fails in a child."""

from twisted.internet.task import react

from asynqueue import ProcessQueue


def lookUp(key):
    """Find something that isn't there."""
    return {"peas": 3}[key]


async def main(reactor):
    """Catch the exception by its type."""
    q = ProcessQueue(1)
    try:
        await q.call(lookUp, "beans")
    except KeyError as error:
        print("KeyError", error)
        lines = str(error.__cause__).splitlines()
        print(
            "it was raised by:", *[x[x.index("in ") :] for x in lines if "lookUp" in x]
        )
    await q.shutdown()


if __name__ == "__main__":
    react(main)
