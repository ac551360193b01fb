"""Callbacks after an import."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from omniq_verl.import_hooks import after_import


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module that nobody has imported yet; names differ by test, as ``sys.modules`` is one for all."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name: str, text: str = "VALUE = 1\n") -> str:
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        names.append(name.removesuffix(".__init__"))
        importlib.invalidate_caches()
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_callback_is_called_once_when_the_module_is_complete(write_module):
    name = write_module("hooked_once")
    seen = []
    after_import(name, lambda module: seen.append((module.__name__, module.VALUE)))
    assert seen == []
    importlib.import_module(name)
    importlib.import_module(name)
    assert seen == [(name, 1)]


def test_a_callback_gets_the_module_that_is_imported(write_module):
    name = write_module("hooked_same")
    seen: list[ModuleType] = []
    after_import(name, seen.append)
    assert seen == [] and importlib.import_module(name) is seen[0] is sys.modules[name]


def test_what_a_callback_changes_is_there_for_the_first_importer(write_module):
    changed, user = write_module("hooked_change"), write_module("hooked_user", "from hooked_change import VALUE\n")
    after_import(changed, lambda module: setattr(module, "VALUE", 2))
    assert importlib.import_module(user).VALUE == 2


def test_a_module_that_is_there_already_calls_back_at_once():
    seen = []
    after_import("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_callbacks_are_called_in_the_order_they_were_registered(write_module):
    name = write_module("hooked_order")
    seen = []
    for number in range(3):
        after_import(name, lambda _module, number=number: seen.append(number))
    importlib.import_module(name)
    assert seen == [0, 1, 2]


def test_an_error_in_a_callback_fails_the_import(write_module):
    name = write_module("hooked_error")
    after_import(name, lambda _module: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(name)
    assert name not in sys.modules


def test_an_error_in_a_callback_fails_the_next_import_as_well(write_module):
    name = write_module("hooked_error_again")
    after_import(name, lambda _module: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            importlib.import_module(name)


def test_an_error_in_the_module_itself_reaches_the_importer_without_a_callback(write_module):
    name = write_module("hooked_broken", "raise RuntimeError('broken module')\n")
    seen = []
    after_import(name, seen.append)
    with pytest.raises(RuntimeError, match="broken module"):
        importlib.import_module(name)
    assert seen == []


def test_a_module_that_could_be_imported_only_at_the_second_try_calls_back(write_module):
    name = write_module("hooked_retry", "raise RuntimeError('not yet')\n")
    seen = []
    after_import(name, seen.append)
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module(name)
    write_module(name, "VALUE = 'of another length than before'\n")
    importlib.import_module(name)
    assert [module.VALUE for module in seen] == ["of another length than before"]


def test_asking_whether_a_module_exists_does_not_use_its_callback_up(write_module):
    name = write_module("hooked_probe")
    seen = []
    after_import(name, seen.append)
    assert importlib.util.find_spec(name) is not None
    assert seen == []
    importlib.import_module(name)
    assert [module.__name__ for module in seen] == [name]


def test_the_module_keeps_its_real_loader_for_inspect_and_pickle(write_module):
    name = write_module("hooked_loader", "def function():\n    return 'text'\n")
    after_import(name, lambda _module: None)
    module = importlib.import_module(name)
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    assert "return 'text'" in inspect.getsource(module.function)


def test_the_module_sees_its_real_loader_while_it_is_executed(write_module):
    name = write_module("hooked_executing", "LOADER = type(__spec__.loader).__name__\n")
    after_import(name, lambda _module: None)
    assert importlib.import_module(name).LOADER == "SourceFileLoader"


def test_a_reload_does_not_call_back_again(write_module):
    name = write_module("hooked_reload")
    seen = []
    after_import(name, seen.append)
    importlib.reload(importlib.import_module(name))
    assert len(seen) == 1


def test_a_module_nobody_has_is_not_found_as_usual(write_module):
    after_import("hooked_nowhere", lambda _module: None)
    with pytest.raises(ModuleNotFoundError, match="hooked_nowhere"):
        importlib.import_module("hooked_nowhere")


def test_a_module_that_appears_after_it_was_missing_still_calls_back(write_module):
    seen = []
    after_import("hooked_late", seen.append)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hooked_late")
    importlib.import_module(write_module("hooked_late"))
    assert len(seen) == 1


def test_a_package_and_its_submodule_call_back_each_for_itself(write_module):
    write_module("hooked_package.__init__", "VALUE = 'package'\n")
    write_module("hooked_package.part", "VALUE = 'part'\n")
    seen = []
    for name in ("hooked_package.part", "hooked_package"):
        after_import(name, lambda module: seen.append(module.VALUE))
    module = importlib.import_module("hooked_package.part")
    assert seen == ["package", "part"]
    assert sys.modules["hooked_package"].part is module


def test_a_callback_may_import_another_awaited_module(write_module):
    first, second = write_module("hooked_first"), write_module("hooked_second")
    seen = []
    after_import(first, lambda _module: importlib.import_module(second))
    after_import(second, lambda module: seen.append(module.__name__))
    importlib.import_module(first)
    assert seen == [second]


def test_a_callback_may_import_its_own_module(write_module):
    name = write_module("hooked_itself")
    seen = []
    after_import(name, lambda _module: seen.append(importlib.import_module(name).VALUE))
    importlib.import_module(name)
    assert seen == [1]


REGISTERS = """
from omniq_verl.import_hooks import after_import
after_import("{name}", lambda module: SEEN.append((module.__name__, module.VALUE)))
"""
"""A plug-in that the awaited module imports before it is complete."""


@pytest.fixture
def seen(write_module) -> list[tuple[str, int]]:
    """What the callbacks of ``REGISTERS`` saw."""
    write_module("hooked_seen", "SEEN = []\n")
    return importlib.import_module("hooked_seen").SEEN


def importing(write_module, name: str, times: int = 1, rest: str = "VALUE = 1\n") -> str:
    """A module that imports ``times`` plug-ins that wait for it, and then goes on."""
    plugins = [f"{name}_plugin_{number}" for number in range(times)]
    for plugin in plugins:
        write_module(plugin, "from hooked_seen import SEEN\n" + REGISTERS.format(name=name))
    return write_module(name, "".join(f"import {plugin}\n" for plugin in plugins) + rest)


@pytest.mark.parametrize("times", [1, 2])
def test_a_module_that_is_being_imported_calls_back_when_that_import_ends(write_module, seen, times):
    name = importing(write_module, f"hooked_begun_{times}", times)
    module = importlib.import_module(name)
    assert seen == [(name, 1)] * times
    assert type(module.__spec__) is ModuleSpec
    assert not module.__spec__._initializing


def test_a_module_that_is_awaited_and_being_imported_calls_back_in_order(write_module, seen):
    name = importing(write_module, "hooked_begun_awaited")
    after_import(name, lambda module: seen.append(("first", module.VALUE)))
    importlib.import_module(name)
    assert seen == [("first", 1), (name, 1)]


def test_an_import_that_fails_calls_back_after_one_that_succeeds(write_module, seen):
    name = importing(write_module, "hooked_begun_broken", rest="raise RuntimeError('not yet')\n")
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module(name)
    assert seen == []
    write_module(name, "VALUE = 'of another length than before'\n")
    importlib.import_module(name)
    assert seen == [(name, "of another length than before")]


def test_an_error_in_the_callback_of_a_begun_import_fails_it(write_module, seen):
    name = importing(write_module, "hooked_begun_error", rest="")
    for _ in range(2):
        with pytest.raises(AttributeError, match="VALUE"):
            importlib.import_module(name)
        assert name not in sys.modules


def test_a_package_that_is_imported_for_its_submodule_calls_back_before_the_submodule(write_module, seen):
    """As with verl, whose ``__init__`` imports the plug-ins whichever submodule is asked for."""
    importing(write_module, "hooked_outer", rest="")
    write_module("hooked_outer.__init__", "import hooked_outer_plugin_0\nVALUE = 'package'\n")
    write_module("hooked_outer.part", "from hooked_seen import SEEN\nSEEN.append('part')\n")
    importlib.import_module("hooked_outer.part")
    assert seen == [("hooked_outer", "package"), "part"]
