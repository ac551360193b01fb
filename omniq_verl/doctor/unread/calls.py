"""Pass the arguments of a call on to every possible callee."""

import ast
from typing import Protocol

from omniq_verl.doctor.unread.flow import NOTHING, Flow, Guess, Instance, Node, Pack, Values
from omniq_verl.doctor.unread.program import Class, Function, Module, last_name

_READS = {"get", "pop", "setdefault"}
_READS_ALL = {"items", "values", "keys", "__iter__"}
_READS_BY_NAME = {"getattr", "hasattr", "select"}
_WRITES_BY_NAME = {"setattr", "__setattr__"}
# These return their argument in another form.
_COPIES = {
    *("deepcopy", "copy", "replace", "to_container", "to_object", "create", "merge", "structured", "resolve", "cast"),
    *("dict", "list", "tuple", "put", "get", "gather", "wait_for", "iter", "reversed", "enumerate", "zip"),
}
_BUILDS = {"omega_conf_to_dataclass", "to_object", "instantiate"}
# Nothing in these depends on a node's value, or they only log it.
_LOGS = {"print", "pprint", "debug", "info", "warning", "error", "warn", "warn_once", "exception"}
_HARMLESS = _LOGS | {
    *("isinstance", "issubclass", "len", "type", "bool", "str", "repr", "id", "open_dict", "to_yaml", "read_write"),
    *("set_struct", "set_readonly", "is_config", "is_dict", "is_missing", "is_dataclass", "callable", "format"),
}
# Methods of built-in containers, whose names do not identify the receiver.
_COMMON = {
    *("get", "append", "update", "items", "keys", "values", "pop", "join", "split", "copy", "extend", "add", "put"),
    *("close", "start", "stop", "to", "run", "setdefault", "remove", "clear", "insert", "index", "count", "sort"),
}
_TELLING = 2  # keywords that are enough to identify a class; many classes take a single config=
_ADDS = {"append", "add", "extend", "insert"}
# These store a class and arguments to call it with; one wrapper's arguments are not passed to the next.
_WRAPPERS = {"RayClassWithInitArgs", "ClassWithInitArgs"}
_CALLABLES = {"cls", "func", "fn", "target", "function", "callback"}


class Walking(Protocol):
    """What a call needs of the walk that meets it."""

    flow: Flow
    function: Function | None
    module: Module

    @property
    def always(self) -> bool: ...

    def value(self, node: ast.expr | None) -> Values: ...

    def names(self, node: ast.expr | None) -> list[str]: ...

    def assign(self, target: ast.expr | None, values: Values) -> None: ...


class Call:
    """A call in the code that ``walk`` goes through."""

    def __init__(self, walk: Walking, node: ast.Call):
        self.walk = walk
        self.flow = walk.flow
        self.node = node
        self.name = last_name(node.func) or ""
        if isinstance(node.func, ast.Name) and self._is_external():
            self.name = walk.module.imports[node.func.id].rpartition(".")[2]
        self.args: list[Values] = []
        self.keywords: dict[str, Values] = {}

    def value(self) -> Values:
        """Possible results of the call."""
        if self.name in _LOGS:
            return NOTHING
        self._arguments()
        if self.name in _READS_BY_NAME | _WRITES_BY_NAME and len(self.args) > 1:
            return self._by_name()
        if self.name in _BUILDS and self.args and not self.keywords.keys() - {"dataclass_type", "_convert_"}:
            return frozenset(Node(each.path, built=True) for each in self.args[0] if isinstance(each, Node))
        owner = self.walk.value(self.node.func.value) if isinstance(self.node.func, ast.Attribute) else NOTHING
        special = self._on_nodes(owner) | self._on_packs(owner)
        if self._is_reading(owner):
            return special
        if isinstance(self.node.func, ast.Attribute) and self._is_adding(owner):
            self.walk.assign(self.node.func.value, NOTHING.union(*self.args))
            return NOTHING
        called = self._called(owner)
        for each in self._passed_on(called):
            self._enter(each, self.args[1:], {k: v for k, v in self.keywords.items() if k not in _CALLABLES})
        if self.name in _WRAPPERS:
            return special | self._outside(called, owner)
        results = special.union(*(self._enter(each, self.args, self.keywords, owner) for each in called))
        return results | self._outside(called, owner)

    def _arguments(self) -> None:
        for each in self.node.args:
            self.args.append(self.walk.value(each))
        for each in self.node.keywords:
            found = self.walk.value(each.value)
            if each.arg:
                self.keywords[each.arg] = found
                continue
            self.flow.take_whole(found)
            for pack in found:
                names = self.flow.get(pack) if isinstance(pack, Pack) else NOTHING
                for name in (each for each in names if isinstance(each, str)):
                    self.keywords[name] = self.keywords.get(name, NOTHING) | self.flow.get((pack, name))

    def _by_name(self) -> Values:
        """``getattr(owner, name, default)`` and similar functions."""
        found = self.args[2] if len(self.args) > 2 else NOTHING
        names = self.walk.names(self.node.args[1])
        for each in self.args[0]:
            if self.name in _WRITES_BY_NAME:
                for name in names:
                    self.flow.set_attribute(frozenset({each}), name, found, self.walk.always)
            elif isinstance(each, Node):
                found |= self.flow.keys(each, names)
            elif isinstance(each, Instance | Class):
                owner = each.of if isinstance(each, Instance) else each
                found = found.union(*(self.flow.member(owner, name) for name in names))
        return NOTHING if self.name in _WRITES_BY_NAME else found

    def _is_reading(self, owner: Values) -> bool:
        """Whether it is only a method of a mapping."""
        mappings = any(isinstance(each, Node | Pack) for each in owner)
        return mappings and self.name in _READS | _READS_ALL | {"copy", "update"}

    def _is_adding(self, owner: Values) -> bool:
        """Whether it is a method of a list or set, which represents its items."""
        of_program = any(isinstance(each, Instance) for each in owner)
        return self.name in _ADDS and not of_program

    def _on_nodes(self, owner: Values) -> Values:
        found = NOTHING
        for node in owner:
            if not isinstance(node, Node):
                continue
            if self.name in _READS and self.args:
                found = found.union(self.flow.keys(node, self.walk.names(self.node.args[0])), *self.args[1:])
            elif self.name in _READS_ALL:
                self.flow.take_whole(frozenset({node}))
            elif self.name == "copy":
                found |= {node}
        return found

    def _on_packs(self, owner: Values) -> Values:
        found = NOTHING
        for pack in owner:
            if not isinstance(pack, Pack):
                continue
            if self.name in _READS and self.args:
                found = found.union(self.flow.unpacked(pack, self.walk.names(self.node.args[0])), *self.args[1:])
            elif self.name == "update":
                for name, values in self.keywords.items():
                    self.flow.pack(pack, name, values)
                for name, values in [("*", each) for each in self.args]:
                    self.flow.pack(pack, name, values)
            elif self.name in ("items", "values"):
                found |= self.flow.unpacked(pack, [])
            elif self.name == "copy":
                found |= {pack}
        return found

    def _called(self, owner: Values) -> list[Function | Class]:
        """Possible callees."""
        if isinstance(self.node.func, ast.Attribute) and self.name == "remote":
            found = owner or self._methods_named(last_name(self.node.func.value))
        elif self.name == "super":
            return []
        else:
            found = self.walk.value(self.node.func) or self._methods_named(self.name)
        called = [each for each in found if isinstance(each, Function | Class)]
        for each in found:
            if isinstance(each, Instance) and (method := each.of.method("__call__")):
                called.append(method)
        # A recipe may name one of our classes instead of verl's (data.custom_cls).
        ours = [child for each in called if isinstance(each, Class) for child in each.children if child.is_ours]
        return [*called, *ours] or [*self._fitting()]

    def _methods_named(self, name: str | None) -> Values:
        """Methods of this name, for an unknown receiver."""
        if name is None or self.flow.guessing < Guess.METHODS or name in _COMMON:
            return NOTHING
        if self._is_external() or not isinstance(self.node.func, ast.Attribute):
            return NOTHING
        found = self.flow.program.methods.get(name, [])
        return frozenset(each for each in found if self._fits(each))

    def _is_external(self) -> bool:
        """Whether it is a function, or a member of a module, from outside of the program."""
        base = self.node.func
        while isinstance(base, ast.Attribute | ast.Call | ast.Subscript):
            base = base.func if isinstance(base, ast.Call) else base.value
        if not isinstance(base, ast.Name) or base.id not in self.walk.module.imports:
            return False
        return self.walk.module.imports[base.id].partition(".")[0] not in self.flow.program.roots

    def _fitting(self) -> list[Class]:
        """Classes that accept all of the keywords, for a callee that could be any class."""
        unknown = self.name == "instantiate" or not self._is_external()
        if self.flow.guessing < Guess.CLASSES or not unknown or not any(
            isinstance(each, Node | Instance) for values in self.keywords.values() for each in values
        ):
            return []
        every = [each for found in self.flow.program.classes.values() for each in found]
        return [each for each in every if (made := each.method("__init__")) and self._fits(made)]

    def _fits(self, function: Function) -> bool:
        config = {name for name, values in self.keywords.items() if any(isinstance(each, Node) for each in values)}
        if self.name == "instantiate":
            config -= {"config"}
        given = {each.arg for each in self.node.keywords if each.arg}
        telling = self.keywords.keys() & function.keywords
        if self.flow.guessing >= Guess.CLASSES and function.name == "__init__" and len(telling) < _TELLING:
            return False
        return config <= function.keywords and (bool(function.tree.args.kwarg) or given <= function.keywords)

    def _passed_on(self, called: list[Function | Class]) -> list[Function | Class]:
        """Functions and classes among the arguments that are called with the others, as in ``partial``."""
        if self.name in _HARMLESS or any(isinstance(each, Function) and each.name == self.name for each in called):
            return []
        given = [*self.args[:1], *(self.keywords[name] for name in _CALLABLES & self.keywords.keys())]
        return [each for values in given for each in values if isinstance(each, Function | Class)]

    def _enter(
        self, called: Function | Class, args: list[Values], keywords: dict[str, Values], owner: Values = NOTHING
    ) -> Values:
        self.flow.reach(called)
        if isinstance(called, Function):
            self._bind(called, args, keywords)
            nodes = {each for each in owner if isinstance(each, Node)}
            if called.receiver and nodes:
                self.flow.add((called, called.receiver), nodes)
            return self.flow.get((called, "return"))
        made = called.method("__init__")
        if made:
            self._bind(made, args, keywords)
        else:
            for name, values in [*zip(called.fields, args, strict=False), *keywords.items()]:
                self.flow.add((called, name), values)
        return frozenset({Instance(called)})

    def _bind(self, function: Function, args: list[Values], keywords: dict[str, Values]) -> None:
        packed = function.tree.args.kwarg
        for name, values in [*zip(function.parameters, args, strict=False), *keywords.items()]:
            if name in function.keywords:
                self.flow.add((function, name), values)
            elif packed:
                self.flow.pack(Pack(function), name, values)
        if rest := function.tree.args.vararg:
            self.flow.add((function, rest.arg), NOTHING.union(*args[len(function.parameters) :]))

    def _outside(self, called: list[Function | Class], owner: Values) -> Values:
        """The result of a call to code outside of the program; nodes passed to it count as read."""
        given = NOTHING.union(*self.args, *self.keywords.values())
        if self.name == "super" and self.walk.function and self.walk.function.owner:
            return frozenset(Instance(each) for each in self.walk.function.owner.parents)
        if self.name == "dict" and isinstance(self.node.func, ast.Name):
            for name, values in self.keywords.items():
                self.flow.pack(Pack(self.node), name, values)
            return NOTHING.union({Pack(self.node)}, *self.args)
        if self.name in ("remote", "options", "partial"):  # what is called later
            return frozenset(each for each in given | owner if isinstance(each, Class | Function))
        if self.name in _COPIES:
            return given | (owner if self.name == "copy" else NOTHING)
        if self.flow.guessing >= Guess.OUTSIDE and not called and self.name not in _HARMLESS | set(self._unset(owner)):
            self.flow.take_whole(given)
        return NOTHING

    def _unset(self, owner: Values) -> list[str]:
        """The called name, if it is a field of a dataclass of the program to which nothing is ever assigned."""
        return [self.name] if any(isinstance(each, Instance) and self.name in each.of.fields for each in owner) else []
