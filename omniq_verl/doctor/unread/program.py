"""The parsed source code that a run can reach: modules, classes and functions by name."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_MAPPINGS = {"BaseConfig"}
"""Classes whose methods only make them usable as mappings."""

Named = ast.FunctionDef | ast.AsyncFunctionDef
Tree = Named | ast.Lambda


@dataclass(eq=False)
class Module:
    """One source file."""

    name: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)
    """Dotted names by local name, for all imports in the file, also within functions."""


@dataclass(eq=False)
class Class:
    """A class definition."""

    name: str
    tree: ast.ClassDef
    module: Module
    methods: dict[str, "Function"] = field(default_factory=dict)
    parents: list["Class"] = field(default_factory=list)
    children: list["Class"] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether the class is part of this package."""
        return self.module.name.startswith("omniq_verl.")

    @cached_property
    def ancestors(self) -> list["Class"]:
        """The class itself, then its bases, nearest first."""
        return list(dict.fromkeys([self, *(found for parent in self.parents for found in parent.ancestors)]))

    @cached_property
    def descendants(self) -> list["Class"]:
        """The classes that inherit from it, excluding itself."""
        found = [each for child in self.children for each in (child, *child.descendants)]
        return list(dict.fromkeys(found))

    @cached_property
    def fields(self) -> list[str]:
        """Parameters of the ``__init__`` of a dataclass: annotated names, inherited ones first."""
        lines = [line for each in reversed(self.ancestors) for line in each.tree.body]
        targets = [line.target for line in lines if isinstance(line, ast.AnnAssign)]
        return list(dict.fromkeys(each.id for each in targets if isinstance(each, ast.Name)))

    def method(self, name: str) -> "Function | None":
        """The method an instance has under this name."""
        return next((each.methods[name] for each in self.ancestors if name in each.methods), None)


@dataclass(eq=False)
class Function:
    """A function, a method, or a lambda."""

    name: str
    tree: Tree
    module: Module
    owner: Class | None = None
    outer: "Function | None" = None
    inner: dict[str, "Function"] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the positional parameters, without a method's ``self`` or ``cls``."""
        args = self.tree.args
        names = [each.arg for each in (*args.posonlyargs, *args.args)]
        return names[1:] if self.owner and not self.has("staticmethod") else names

    @cached_property
    def keywords(self) -> set[str]:
        """Names of the parameters that can be given by keyword."""
        return {*self.parameters, *(each.arg for each in self.tree.args.kwonlyargs)}

    @property
    def receiver(self) -> str | None:
        """Name of the first parameter of a method."""
        args = [*self.tree.args.posonlyargs, *self.tree.args.args]
        return args[0].arg if self.owner and args and not self.has("staticmethod") else None

    @property
    def is_property(self) -> bool:
        """Whether it is called by reading an attribute."""
        return self.has("property") or self.has("cached_property")

    def has(self, decorator: str) -> bool:
        """Whether it has a decorator of this name."""
        found = getattr(self.tree, "decorator_list", [])
        return any(decorator == last_name(each) for each in found)


class Program:
    """All modules of some packages, except for excluded ones."""

    def __init__(self, files: Iterable[tuple[str, Path]]):
        """Parse ``files``, pairs of dotted module names and source paths."""
        self.modules = {name: Module(name, ast.parse(path.read_text())) for name, path in files}
        self.classes: dict[str, list[Class]] = defaultdict(list)
        self.functions: dict[str, list[Function]] = defaultdict(list)
        self.methods: dict[str, list[Function]] = defaultdict(list)
        for module in self.modules.values():
            module.imports = dict(_imports(module))
            self._define(module, module.tree.body, None, None)
        self._inherit()

    def _define(self, module: Module, lines: list[ast.stmt], owner: Class | None, outer: Function | None) -> None:
        for line in lines:
            if isinstance(line, ast.ClassDef):
                defined = Class(line.name, line, module)
                self.classes[line.name].append(defined)
                self._define(module, line.body, defined, outer)
            elif isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef):
                self._define_function(module, line, owner, outer)
            elif blocks := [getattr(line, name, None) for name in ("body", "orelse", "finalbody", "handlers")]:
                for block in blocks:
                    for part in block if isinstance(block, list) else []:
                        inside = part.body if isinstance(part, ast.ExceptHandler) else [part]
                        self._define(module, inside, owner, outer)

    def _define_function(self, module: Module, tree: Named, owner: Class | None, outer: Function | None) -> None:
        function = Function(tree.name, tree, module, owner, outer)
        if owner and owner.name in _MAPPINGS:
            return
        if owner:
            owner.methods[tree.name] = function
            self.methods[tree.name].append(function)
        elif outer:
            outer.inner[tree.name] = function
        else:
            self.functions[tree.name].append(function)
        self._define(module, tree.body, None, function)

    def _inherit(self) -> None:
        for found in list(self.classes.values()):
            for each in found:
                for base in each.tree.bases:
                    each.parents += [one for one in self.named(each.module, last_name(base)) if isinstance(one, Class)]
                for parent in each.parents:
                    parent.children.append(each)

    def named(self, module: Module, name: str | None) -> list[Class | Function]:
        """Possible meanings of a global name of a module; empty if it is defined outside of the program."""
        if name is None:
            return []
        if name in module.imports and module.imports[name].partition(".")[0] not in self.roots:
            return []
        original = module.imports.get(name, name).rpartition(".")[2]
        known = [*self.classes.get(original, []), *self.functions.get(original, [])]
        here = [each for each in known if each.module is module]
        if here or name not in module.imports:
            return here
        source = module.imports[name].rpartition(".")[0]
        return [each for each in known if each.module.name == source] or known

    @cached_property
    def roots(self) -> set[str]:
        """Names of the packages."""
        return {name.partition(".")[0] for name in self.modules}


def last_name(node: ast.expr) -> str | None:
    """``c`` for ``a.b.c``, ``a.b.c[d]`` and ``a.b.c(d)``."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _imports(module: Module) -> Iterator[tuple[str, str]]:
    package = module.name.split(".")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]
                yield each.asname or top, each.name if each.asname else top
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level]) if node.level else ""
            source = ".".join(filter(None, (above, node.module)))
            for each in node.names:
                yield each.asname or each.name, f"{source}.{each.name}"
