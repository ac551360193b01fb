"""``package.module:object``: how a setting names something that lies outside of this package.

Whatever is named in this way is looked up in each process that needs it, so that nothing has to be registered: the
module must be importable there (installed, or in a folder of PYTHONPATH).
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
_DOOR = re.compile(f"({_NAME}):({_NAME})")


class BadDoor(ValueError):
    """What a setting names cannot be used: the message names the setting, the reason and what is expected."""


def is_door(name: object) -> bool:
    """True for a text of the form ``package.module:object``."""
    return isinstance(name, str) and _DOOR.fullmatch(name) is not None


def open_door(setting: str, name: str, expected: str) -> Any:
    """The object that a setting names.

    Args:
        setting: for error texts, such as ``--engine``.
        name: ``package.module:object``; the object may be an attribute of another (``module:Class.method``).
        expected: what the object must be, for error texts: a signature or a type.

    Raises:
        BadDoor: the name has another form, the module cannot be imported, or it has no such object.
    """
    found = _DOOR.fullmatch(name)
    if found is None:
        raise BadDoor(f"{setting} is {name!r}. Fix: write {FORM}, where the object is {expected}")
    module, path = found.groups()
    try:
        there: Any = import_module(module)
    except (Exception, SystemExit) as error:  # a module of the user's own may raise anything
        raise BadDoor(
            f"{setting} is {name!r}, and the module {module} cannot be imported ({described(error)})."
            f" Fix: install it or add its folder to PYTHONPATH; expected is {expected}"
        ) from error
    for part in path.split("."):
        try:
            there = getattr(there, part)
        except AttributeError:
            raise BadDoor(
                f"{setting} is {name!r}, and {module} has no {path}{_others(there)}."
                f" Fix: correct the name; expected is {expected}"
            ) from None
    return there


def open_function(
    setting: str, name: str, expected: str, arguments: int, keywords: Sequence[str] = ()
) -> Callable[..., Any]:
    """The function that a setting names, once it is sure that it can be called in the way it will be.

    Args:
        setting: for error texts.
        name: ``package.module:function``.
        expected: its signature, for error texts.
        arguments: how many arguments it is given by position.
        keywords: names of the arguments it is given besides.

    Raises:
        BadDoor: as ``open_door``, or it is no function, or it takes other arguments.
    """
    function = open_door(setting, name, expected)
    if not callable(function):
        raise BadDoor(f"{setting} is {name!r}, which is no function but {_a(function)}. Fix: name {expected}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C do not tell theirs
        return function
    try:
        signature.bind(*[None] * arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        raise BadDoor(
            f"{setting} is {name!r}, which takes {signature} ({error}). Fix: give it the form {expected}"
        ) from None
    return function


def described(error: BaseException) -> str:
    """An error of the user's own code in one line, with the file and line where it was raised."""
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    # Errors of the import itself are raised by Python and not by a line of the user's.
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
