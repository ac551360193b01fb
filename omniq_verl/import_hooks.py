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
from typing import Any

Callback = Callable[[ModuleType], None]
_ADAPTERS, _ADAPTER = f"{__package__}.", "_verl"
"""Prefix and suffix of the names of modules that adapt verl."""


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
        _call_back(module, self._waiting)


def _call_back(module: ModuleType, waiting: dict[str, list[Callback]]) -> None:
    for callback in waiting[module.__name__]:
        callback(module)
    # Delete them only now: if the module or a callback fails, the next import tries again.
    del waiting[module.__name__]


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


class _NotifyingSpec(importlib.machinery.ModuleSpec):
    """The spec of a module whose import has begun, so that its loader can no longer be wrapped.

    The import system sets ``_initializing`` of the spec to False when it has finished
    (``importlib._bootstrap._load_unlocked``), whether or not it succeeded.
    """

    @property
    def _initializing(self) -> bool:
        return True

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        self.__class__ = importlib.machinery.ModuleSpec  # pyright: ignore[reportAttributeAccessIssue]  same layout
        self._initializing = value
        module = sys.modules.get(self.name)
        if module is None or module.__spec__ is not self:
            return  # the import failed, and the finder waits for the next one
        try:
            _call_back(module, _finder.waiting)
        except BaseException:
            del sys.modules[self.name]
            raise


def after_import(module_name: str, callback: Callback) -> None:
    """Call ``callback(module)`` once ``module_name`` is imported, or immediately if it already is.

    If the module is being imported, the callback waits for the end of that import. An exception raised by the callback
    fails the import, so a plug-in that could not be installed is not overlooked.
    """
    module = sys.modules.get(module_name)
    spec: Any = getattr(module, "__spec__", None)
    begun = getattr(spec, "_initializing", False)
    if module is not None and not begun:
        callback(module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    # A module that is being imported and awaited already has a loader or a spec that will notify.
    if begun and module_name not in _finder.waiting:
        spec.__class__ = _NotifyingSpec
    _finder.waiting.setdefault(module_name, []).append(callback)


def once_complete(callback: Callback) -> Callback:
    """Return the callback, delayed while an adapter of this package is being imported.

    Use this for callbacks that import adapters. If an adapter is the first to import the awaited module, the callback
    would otherwise find the adapter without its names.
    """

    def call(module: ModuleType) -> None:
        if unfinished := _adapter_being_imported():
            after_import(unfinished, lambda _: callback(module))
        else:
            callback(module)

    return call


def _adapter_being_imported() -> str | None:
    """Return the adapter whose import began first and has not ended."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name.startswith(_ADAPTERS) and name.endswith(_ADAPTER) and getattr(spec, "_initializing", False):
            return name
    return None
