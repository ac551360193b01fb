"""Names of user-defined objects in settings: ``package.module:object``.

Each process that needs the object looks it up, so nothing has to be registered. The module must be importable there
(installed, or in a folder of PYTHONPATH).
"""

import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

FORM = "package.module:object"
_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_REFERENCE = re.compile(f"({_NAME}):({_NAME})")


class BadReference(ValueError):
    """The object named by a setting cannot be used; the message names the setting, the reason and what is expected."""


def is_reference(name: object) -> bool:
    """Whether the name is a text of the form ``package.module:object``."""
    return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def load_object(setting: str, name: str, expected: str) -> Any:
    """Import the object named by a setting.

    Args:
        setting: the setting's name for error messages, such as ``--engine``.
        name: ``package.module:object``; the object may be a nested attribute (``module:Class.method``).
        expected: what the object must be, for error messages: a signature or a type.

    Raises:
        BadReference: the name has another form, the module cannot be imported, or it lacks the object.
    """
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise BadReference(f"{setting} is {name!r}. Fix: write {FORM}, where the object is {expected}")
    module, path = found.groups()
    try:
        there: Any = import_module(module)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise BadReference(
            f"{setting} is {name!r}, and the module {module} cannot be imported ({described(error)})."
            f" Fix: install it or add its folder to PYTHONPATH; expected: {expected}"
        ) from error
    for part in path.split("."):
        try:
            there = getattr(there, part)
        except AttributeError:
            raise BadReference(
                f"{setting} is {name!r}, and {module} has no {path}{_others(there)}."
                f" Fix: correct the name; expected: {expected}"
            ) from None
    return there


def load_function(
    setting: str, name: str, expected: str, arguments: int, keywords: Sequence[str] = ()
) -> Callable[..., Any]:
    """Import the function named by a setting, and check that it can be called as intended.

    Args:
        setting: the setting's name for error messages.
        name: ``package.module:function``.
        expected: the expected signature, for error messages.
        arguments: number of positional arguments in the call.
        keywords: names of the keyword arguments in the call.

    Raises:
        BadReference: see ``load_object``; also if the object is not a function, or has other parameters.
    """
    function = load_object(setting, name, expected)
    if not callable(function):
        raise BadReference(f"{setting} is {name!r}, which is not a function but {_a(function)}. Fix: name {expected}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return function
    try:
        signature.bind(*[None] * arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        raise BadReference(
            f"{setting} is {name!r}, which takes {signature} ({error}). Fix: give it the form {expected}"
        ) from None
    return function


def described(error: BaseException) -> str:
    """Describe an error in user code in one line, with the file and line where it was raised."""
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    # Errors of the import itself are raised by Python, not by a line of the user's code.
    where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames and not _is_import(frames) else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _is_import(frames: Sequence[traceback.FrameSummary]) -> bool:
    return Path(frames[-1].filename).parts[-2:] == ("importlib", "__init__.py")


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _others(there: object) -> str:
    names = [name for name in vars(there) if not name.startswith("_")] if hasattr(there, "__dict__") else []
    return f" (it has {', '.join(names[:10])})" if names else ""
