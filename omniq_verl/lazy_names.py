"""Import a subpackage's public names on first use, because verl imports this package in every process."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def export_names(room: str, names: Mapping[str, Sequence[str]]) -> None:
    """Make names of a subpackage's modules available in the subpackage. Each module is imported on first use.

    Args:
        room: full name of the subpackage, whose ``__init__`` calls this function.
        names: the names that each module provides, by the module's name within the subpackage.
    """
    homes = {name: module for module, some in names.items() for name in some}

    class Room(ModuleType):
        """If a function has the name of its module, the name still means the function after the module is imported."""

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
