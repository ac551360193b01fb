"""The state of the analysis that follows a configuration through source code.

This is a points-to analysis that ignores the order of statements: every variable, attribute and return value has a
set of possible values, and all functions are walked until no set grows. Where code is too dynamic to follow, the sets
become larger than the truth, so that the analysis errs towards "this key is read": a whole node counts as read once it
is passed to code outside of the program, unpacked, or indexed by an unknown name.
"""

import ast
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from omniq_verl.doctor.unread.paths import Path, leaves
from omniq_verl.doctor.unread.program import Class, Function, Module, Program


class Guess(IntEnum):
    """How to follow calls whose callee is unknown.

    Each way is tried only when the previous ones find nothing more, because a callee may become known later.
    """

    NONE = 0
    METHODS = 1
    """Try all methods of the called name."""
    CLASSES = 2
    """Try all classes that accept the given keywords."""
    OUTSIDE = 3
    """Assume code outside of the program, which may read everything it gets."""


@dataclass(frozen=True)
class Node:
    """A node or a value of the configuration.

    ``built`` marks the dataclass instance that verl built from it, a copy that code may change independently.
    """

    path: Path
    built: bool = False

    def __getitem__(self, name: str) -> "Node":
        return Node((*self.path, *name.split(".")), self.built)


@dataclass(frozen=True)
class Instance:
    """Any instance of a class of the program."""

    of: Class


@dataclass(frozen=True)
class Pack:
    """A dictionary with known keys: a display, ``dict(...)``, or the ``**kwargs`` of a function."""

    site: Any


Value = Node | Instance | Pack | Class | Function | str
Values = frozenset[Value]
Unit = Module | Class | Function  # what is walked
NOTHING: Values = frozenset()


class Flow:
    """The state of the analysis.

    Args:
        program: all code that may see the configuration.
        tree: verl's default configuration.
        types: by path, the name of the dataclass that verl builds from the node.
        assumed: values of settings on which code branches, such as the strategy.
    """

    def __init__(
        self, program: Program, tree: Mapping[str, Any], types: Mapping[Path, str], assumed: Mapping[Path, str]
    ):
        self.program = program
        ends = dict(leaves(tree))
        self.values = {path for path, value in ends.items() if value is not None and not isinstance(value, dict)}
        self.mappings = {path[:length] for path in ends for length in range(len(path))}
        self.mappings |= {path for path, value in ends.items() if isinstance(value, dict)}
        self.types = types
        self.assumed = assumed
        fields = [name for found in program.classes.values() for each in found for name in each.fields]
        self.names = {name for path in ends for name in path}.union(fields)
        self.guessing = Guess.NONE
        self.current: Unit | None = None
        self.waiting: dict[Unit, None] = {}
        """Units to walk, also again if something they read has changed since."""
        self.reached: set[Unit] = set()
        self.held: dict[Hashable, set[Value]] = defaultdict(set)
        self._readers: dict[Hashable, set[Unit]] = defaultdict(set)
        self.lambdas: dict[ast.Lambda, Function] = {}
        self.read: set[Node] = set()
        self.whole: set[Node] = set()
        """Nodes whose keys all count as read."""
        self.written: set[Node] = set()
        """Keys of built nodes that the dataclass's ``__post_init__`` always sets, whatever the user gave."""

    def get(self, ref: Hashable) -> Values:
        """Possible values of the variable, attribute or result ``ref``."""
        if self.current is not None:
            self._readers[ref].add(self.current)
        return frozenset(self.held.get(ref, ()))

    def add(self, ref: Hashable, values: Iterable[Value]) -> None:
        """Add possible values of ``ref``."""
        held = self.held[ref]
        before = len(held)
        held.update(values)
        if len(held) != before:
            self.waiting.update(dict.fromkeys(self._readers[ref]))

    def reach(self, unit: Unit) -> None:
        """Schedule a function, or a class with all of its methods, for walking."""
        if unit in self.reached:
            return
        self.reached.add(unit)
        if not isinstance(unit, Class):
            self.waiting[unit] = None
            return
        for each in unit.ancestors:
            for method in each.methods.values():
                self.reach(method)

    def pack(self, pack: Pack, name: str, values: Iterable[Value]) -> None:
        """Add possible values of a dictionary's key; names are not followed into dictionaries."""
        kept = [each for each in values if not isinstance(each, str)]
        if kept:
            self.add(pack, {name})
            self.add((pack, name), kept)

    def unpacked(self, pack: Pack, names: list[str]) -> Values:
        """Possible values of a dictionary's keys; of all keys if no name is known."""
        known = [*names, "*"] if names else self.get(pack)
        return NOTHING.union(*(self.get((pack, name)) for name in known))

    def classes_at(self, node: Node) -> list[Class]:
        """The dataclasses that may be built from a node."""
        found = self.program.classes.get(self.types.get(node.path, ""), [])
        return list(dict.fromkeys(one for each in found for one in (each, *each.descendants)))

    def constants(self, values: Values) -> list[str]:
        """The values that are names: constants, and assumed settings."""
        settled = [self.assumed.get(each.path) for each in values if isinstance(each, Node)]
        return [*(each for each in values if isinstance(each, str)), *filter(None, settled)]

    def take_whole(self, values: Values) -> None:
        """Count all keys of these nodes as read.

        The root is excluded: code that takes the whole configuration without being followed only logs it.
        """
        for each in values:
            if isinstance(each, Node) and each.path:
                self.whole.add(each)

    def keys(self, node: Node, names: list[str]) -> Values:
        """Read keys of a node; all of them if no name is known."""
        if not names:
            self.take_whole(frozenset({node}))
            return NOTHING
        return NOTHING.union(*(self.key(node, name) for name in names if name))

    def key(self, node: Node, name: str) -> Values:
        """Read one key of a node, which may be a property of the dataclass built from it."""
        found = set(self.get((node, name)))
        for each in self.classes_at(node):
            method = each.method(name)
            if method and method.is_property:
                self.reach(method)
                self.add((method, method.receiver), {node})
                return frozenset(found | self.get((method, "return")))
            if method:
                return frozenset({method})
        self.read.add(node[name])
        if node[name].path in self.mappings or node[name].path in self.assumed:
            found.add(node[name])
        elif node[name].path not in self.values:  # it is in no default, so its keys are unknown
            self.whole.add(node[name])
        return frozenset(found)

    def member(self, owner: Class, name: str) -> Values:
        """Possible values of an attribute of an instance of ``owner`` or of a subclass."""
        found: set[Value] = set()
        for each in (*owner.ancestors, *owner.descendants):
            found |= self.get((each, name))
            method = each.methods.get(name)
            if method and method.is_property:
                self.reach(method)
                found |= self.get((method, "return"))
            elif method:
                found.add(method)
        return frozenset(found)

    def set_attribute(self, owners: Values, name: str, values: Values, always: bool) -> None:
        """``owner.name = values``; with ``always``, in every instance of the dataclass, whatever its settings are."""
        for each in owners:
            if isinstance(each, Pack):
                self.pack(each, name, values)
            elif isinstance(each, Instance | Class | Node):
                self.add((each.of if isinstance(each, Instance) else each, name), values)
            if isinstance(each, Node) and each.built and always:
                self.written.add(each[name])
