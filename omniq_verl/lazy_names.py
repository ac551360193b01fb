"""Public names of a room that are imported on first use, because verl imports this package in every process."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def export_names(room: str, names: Mapping[str, Sequence[str]]) -> None:
    """Make names from a room's modules available in the room; each module is imported when it is first needed.

    Args:
        room: full name of the package; called from its ``__init__``.
        names: by module name within the room, the names that the module provides.
    """
    homes = {name: module for module, some in names.items() for name in some}

    class Room(ModuleType):
        """If a function has the name of its module, the room's name stays the function when the module is imported."""

        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {room!r} has no attribute {name!r}")
            found = getattr(import_module(f"{room}.{homes[name]}"), name)
            self.__dict__[name] = found
            return found

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name in homes and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *homes})

    sys.modules[room].__class__ = Room
