"""Looks a used name up in the installed packages and describes it in one line of text."""

import enum
import importlib
import inspect
from types import ModuleType
from typing import Any

from surface.instances import Absent, Existing, Instance, Method, Unknown, attribute_of, result_of

ABSENT = None
UNKNOWN = "unknown"
"""The type of an object on the way to the name is not declared, so that nothing can be said about it."""
MODULE, VALUE = "module", "value"
UNREADABLE = "no signature"
"""Callable, but written in C without a signature."""


def describe(name: str) -> str | None:
    """One line about a used name.

    Returns:
        The parameters of something callable, such as ``model, *, runner=..., **kwargs`` (an empty string if it has
        none), otherwise one of the constants above.
    """
    try:
        found = resolve(name)
    except Absent:
        return ABSENT
    except Unknown:
        return UNKNOWN
    if inspect.ismodule(found):
        return MODULE
    if isinstance(found, Existing) or (isinstance(found, Instance) and not name.endswith("()")):
        return VALUE
    if not callable(found) and not isinstance(found, Instance | Method):
        return VALUE
    if isinstance(found, enum.EnumMeta):  # its signature is Python's own, and differs between Python's versions
        return VALUE
    try:
        return parameters(found)
    except (ValueError, TypeError):
        return UNREADABLE


def parameters(found: Any) -> str:
    """The parameters without annotations, with ``...`` for defaults, and without ``self``."""
    bound = isinstance(found, Instance | Method)
    if isinstance(found, Instance):
        found = found.of.forward if hasattr(found.of, "forward") else found.of.__call__
    signature = inspect.signature(found.function if isinstance(found, Method) else found)
    kept = list(signature.parameters.values())[bound:]
    plain = [one.replace(annotation=one.empty, default=one.empty if one.default is one.empty else ...) for one in kept]
    return str(inspect.Signature(plain))[1:-1].replace("=Ellipsis", "=...")


def resolve(name: str) -> Any:
    """The object of this name, importing what is needed.

    Raises:
        Absent: there is none.
        Unknown: it cannot be told.
    """
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], 1):
        attribute = part.removesuffix("()")
        if isinstance(found, Existing):
            raise Unknown
        if isinstance(found, Instance):
            found = attribute_of(found.of, attribute)
        else:
            found = _of_object(found, attribute, ".".join(parts[: position + 1]).removesuffix("()"))
        if part.endswith("()"):
            found = result_of(found)
    return found


def _of_object(found: Any, attribute: str, name: str) -> Any:
    try:
        return getattr(found, attribute)
    except AttributeError:
        if not isinstance(found, ModuleType):
            raise Absent(name) from None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the module is there, and something that it needs is not
            raise
        raise Absent(name) from None
