"""Run a function right after a module has been imported, without importing it now.

verl loads its plug-ins in the middle of ``import verl``, before its own modules exist. Registering a trainer or an
engine there would import torch models, vLLM and Ray into every process that only needs ``import verl``. So the plug-in
registers a callback instead, which the import system calls later.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Callback = Callable[[ModuleType], None]


class _NotifyingLoader(importlib.abc.Loader):
    """The module's own loader, followed by the callbacks."""

    def __init__(self, loader: importlib.abc.Loader, waiting: dict[str, list[Callback]]):
        self._loader = loader
        self._waiting = waiting

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Restore the module's real loader first: inspect, pickle and pkgutil look at it later.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for callback in self._waiting[module.__name__]:
            callback(module)
        # Only now: if the module or a callback fails, it is tried again at the next import.
        del self._waiting[module.__name__]


class _AfterImportFinder(importlib.abc.MetaPathFinder):
    """Wraps the loader of each awaited module; other imports are not affected."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Callback]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        spec = next((s for f in sys.meta_path if f is not self and (s := f.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _NotifyingLoader(spec.loader, self.waiting)
        return spec


_finder = _AfterImportFinder()


def after_import(module_name: str, callback: Callback) -> None:
    """Call ``callback(module)`` once ``module_name`` is imported; immediately if it already is.

    An exception raised by the callback fails the import, so that a plug-in that could not be installed is not
    overlooked.
    """
    if module_name in sys.modules:
        callback(sys.modules[module_name])
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.waiting.setdefault(module_name, []).append(callback)
