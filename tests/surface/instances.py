"""What can be told about the objects of a class without creating one."""

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any


class Absent(LookupError):
    """The installed packages do not have this name."""


class Unknown(LookupError):
    """Whether there is such a name depends on a type that is not declared."""


@dataclass(frozen=True)
class Instance:
    """An object of a class."""

    of: type


@dataclass(frozen=True)
class Method:
    """A function of a class, as called on an instance."""

    function: Any
    owner: type


class Existing:
    """An attribute that exists; its type is not known."""


def attribute_of(owner: type, name: str) -> Instance | Method | Existing | Any:
    """An attribute of an instance: a method, or what the class's source and annotations tell about the attribute.

    Raises:
        Absent: neither the class nor its methods define it.
        Unknown: the class computes its attributes, or its source is not at hand.
    """
    try:
        found = inspect.getattr_static(owner, name)
    except AttributeError:
        return _instance_attribute(owner, name)
    if isinstance(found, staticmethod | classmethod):
        return getattr(owner, name)
    if inspect.isfunction(found):
        return Method(found, owner)
    if isinstance(found, property) and found.fget is not None:
        return _or_existing(lambda: result_of(Method(found.fget, owner)))
    return Existing()


def result_of(found: Any) -> Instance:
    """What a call of a class or function returns, by its annotation.

    Raises:
        Unknown: there is no annotation, or it is not simply a class.
    """
    if isinstance(found, type):
        return Instance(found)
    owner = found.owner if isinstance(found, Method) else getattr(found, "__self__", None)
    function = found.function if isinstance(found, Method) else found
    try:
        declared = typing.get_type_hints(function).get("return")
    except Exception:  # an annotation that names something imported for type checkers alone
        declared = getattr(function, "__annotations__", {}).get("return")
    if isinstance(owner, type) and declared in (getattr(typing, "Self", owner), owner.__name__):
        return Instance(owner)
    if not isinstance(declared, type):
        raise Unknown
    return Instance(declared)


def _or_existing(find: Any) -> Any:
    try:
        return find()
    except (Unknown, Absent):
        return Existing()


def _instance_attribute(owner: type, name: str) -> Instance | Existing:
    for one in owner.__mro__[:-1]:
        for value in _assigned(one).get(name, ()):
            found = _or_existing(lambda value=value, one=one: _evaluate(value, one, owner))
            return found if isinstance(found, Instance) else Existing()
    if any(name in getattr(one, "__annotations__", {}) for one in owner.__mro__):
        return Existing()
    if hasattr(owner, "__getattr__") or not all(map(_has_source, owner.__mro__[:-1])):
        raise Unknown
    raise Absent(name)


def _has_source(owner: type) -> bool:
    try:
        return bool(inspect.getsource(owner))
    except (OSError, TypeError):
        return False


@cache
def _assigned(owner: type) -> dict[str, list[ast.expr]]:
    """Values that the methods of a class assign to ``self.name``, by name."""
    found: dict[str, list[ast.expr]] = {}
    if _has_source(owner):
        for target, value in _assignments(ast.parse(textwrap.dedent(inspect.getsource(owner)))):
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
                found.setdefault(target.attr, []).append(value)
    return found


def _assignments(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                    yield one, node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            yield node.target, node.value or ast.Constant(None)


def _evaluate(node: ast.expr, defined_in: type, owner: type) -> Any:
    """The object or instance that an expression such as ``LLMEngine.from_engine_args(args)`` stands for."""
    if isinstance(node, ast.Name):
        if node.id == "self":
            return Instance(owner)
        return vars(sys.modules[defined_in.__module__]).get(node.id, Existing())
    if isinstance(node, ast.Attribute):
        base = _evaluate(node.value, defined_in, owner)
        if isinstance(base, Existing):
            raise Unknown
        return attribute_of(base.of, node.attr) if isinstance(base, Instance) else getattr(base, node.attr, Existing())
    if isinstance(node, ast.Call):
        return result_of(_evaluate(node.func, defined_in, owner))
    raise Unknown
