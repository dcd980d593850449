"""
Has pydoctor show each public name in its public module.

Many classes are defined in private modules and re-exported by public ones. pydoctor
would list them with the former, which it hides.
"""

from __future__ import annotations

from pydoctor import extensions, model

#: Public modules in the order in which they take names from private ones. The facades
#: come last, as they re-export what others have too.
PUBLIC = (
    "interfaces",
    "tasks",
    "base",
    "iteration",
    "process",
    "threads",
    "wire",
    "monitor",
    "credentials",
    "util",
    "workers",
)


def publish(system: model.System) -> None:
    """
    Move public names from private modules to the public ones.

    @param system: All that pydoctor has read.
    """
    for name in PUBLIC:
        place = system.allobjects.get(f"asynqueue.{name}")
        if not isinstance(place, model.Module):
            continue
        for exported in place.all or ():
            thing = place.resolveName(exported)
            if isinstance(thing, model.Documentable) and isPrivate(thing.parent):
                move(thing, place)


def move(thing: model.Documentable, place: model.Module) -> None:
    """Move something to a public module, and private classes that it inherits from."""
    bases = [base for base, _ in getattr(thing, "rawbases", ())]
    found = [thing.module.resolveName(base) for base in bases]
    lend(thing.module, place)
    thing.reparent(place, thing.name)
    for base in found:
        if isinstance(base, model.Class) and isPrivate(base.parent):
            move(base, place)


def lend(home: model.Module, place: model.Module) -> None:
    """
    Have names that docstrings of one module use understood in another.

    @param home: The one.

    @param place: The other.
    """
    names = {name: thing.fullName() for name, thing in home.contents.items()}
    names.update(home._localNameToFullName_map)
    for name, fullName in names.items():
        if name not in place.contents:
            place._localNameToFullName_map.setdefault(name, fullName)


def isPrivate(module: model.Documentable | None) -> bool:
    """
    Tell whether a module, or a package that it's in, is private.

    @param module: The module.

    @return: Whether it is.
    """
    return module is not None and any(
        part.startswith("_") for part in module.fullName().split(".")
    )


def setup_pydoctor_extension(registrar: extensions.ExtRegistrar) -> None:
    """
    Register with pydoctor.

    @param registrar: Where to register.
    """
    # Before all others, which compute inheritance and the like from where things are.
    registrar.register_post_processor(publish, priority=1000)


class System(model.System):
    """A system that publishes."""

    custom_extensions = [__name__]  # noqa: RUF012 - pydoctor has it so
