"""Finds what the package uses of its frameworks, by reading its source; nothing is imported.

A used name is a dotted path such as ``ray.data.from_items``. ``vllm.LLM().generate`` is the method ``generate`` of
what the call ``vllm.LLM(...)`` returns.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from surface.keywords import Keywords

FRAMEWORKS = ("ray", "torch", "transformers", "verl", "vllm")

FOLLOWED = ("ray", "verl", "vllm")
"""Packages whose objects are followed into annotated parameters and attributes. Those of torch and transformers are too
many, and their modules and configurations compute their attributes."""

MIXINS = {
    "omniq_verl.trainer.freeze_verl._OnePart": "verl.workers.engine.fsdp.transformer_impl.FSDPEngineWithLMHead",
}
"""Classes whose upstream base is chosen at run time, and one such base."""


@dataclass(frozen=True)
class Call:
    """The shape of one call. ``open`` means that it may pass more than is listed (``*args``, ``**settings``)."""

    positional: int
    keywords: tuple[str, ...]
    open: bool


@dataclass(frozen=True)
class Use:
    """One place in the source that relies on an upstream name."""

    name: str
    where: str
    """``file:line``."""
    call: Call | None = None
    method: str | None = None
    """Parameters of our method, as source text, where a class of ours defines a method of this name."""
    ours: bool = False
    """The name may also belong to our own class, so that upstream need not have it."""


def uses_of(package: Path) -> list[Use]:
    """All uses in the package's source files, in the order of the files."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    names = {path: module_name(path, package) for path in trees}
    modules = {name: trees[path] for path, name in names.items()}
    classes = dict(pair for path in trees for pair in _classes(names[path], trees[path]))
    found = []
    for path, tree in trees.items():
        reader = _Reader(names[path], path.relative_to(package.parent).as_posix(), modules, classes)
        reader.read(tree)
        found += reader.uses
    return found


def module_name(path: Path, package: Path) -> str:
    """``omniq_verl.data.rows`` for its file."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_upstream(name: str | None) -> bool:
    return name is not None and name.split(".")[0] in FRAMEWORKS


def _is_followed(name: str | None) -> bool:
    return name is not None and name.split(".")[0] in FOLLOWED


def imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name for the imports among these statements, without those of nested functions."""
    names = {}
    for node in _own_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def _own_nodes(tree: ast.AST) -> list[ast.AST]:
    """The nodes of a function, class or module, without the insides of the functions and classes within it."""
    found, waiting = [], [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            found.append(child)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                waiting.append(child)
    return found


def _classes(module: str, tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    names = imported(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = [_chain(base, names) or f"{module}.{ast.unparse(base)}" for base in node.bases]
            yield f"{module}.{node.name}", [*bases, *filter(None, [MIXINS.get(f"{module}.{node.name}")])]


def _chain(node: ast.expr, names: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (base := _chain(node.value, names)):
        return f"{base}.{node.attr}"
    return None


def _short_text(node: ast.expr | None) -> str | None:
    """The source of a name, of ``self.attribute`` and of ``super()``; other expressions have none."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=attribute):
            return f"self.{attribute}"
        case ast.Call(func=ast.Name(id="super"), args=[]):
            return "super()"
    return None


def _declared(annotation: ast.expr | None, names: Mapping[str, str]) -> str | None:
    """``vllm.LLM()`` for the annotation ``"LLM"`` or ``LLM | None``."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return _declared(annotation.left, names) or _declared(annotation.right, names)
    name = _chain(annotation, names) if annotation else None
    return f"{name}()" if _is_followed(name) else None


def _returns_a_known_type(callee: str) -> bool:
    # A class, or an alternative constructor; what other functions return is rarely annotated.
    last = callee.split(".")[-1]
    return last[0].isupper() or last.startswith("from_")


def _pairs(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            both = zip(target.elts, node.value.elts, strict=False)
        else:
            both = [(target, node.value)]
        for one, value in both:
            if text := _short_text(one):
                yield text, value


def _assigned_once(nodes: Iterable[ast.AST]) -> dict[str, ast.expr | None]:
    """Text of each assigned name or ``self.attribute`` -> its value; None where there are several."""
    values: dict[str, ast.expr | None] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                values[target] = None if target in values else value
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            values.setdefault(node.id, None)
    return values


class _Reader:
    """Walks one module with the names that are visible at each place."""

    def __init__(
        self, module: str, file: str, modules: Mapping[str, ast.Module], classes: Mapping[str, list[str]]
    ) -> None:
        self.uses: list[Use] = []
        self._module, self._file = module, file
        self._modules, self._classes = modules, classes
        self._keywords = Keywords(modules)
        self._hooks: dict[str, str] = {}

    def read(self, tree: ast.Module) -> None:
        names = self._imports(tree, {})
        own = {node.name: f"{self._module}.{node.name}" for node in tree.body if hasattr(node, "name")}
        self._hooks = dict(_import_hooks(tree))
        for module in self._hooks.values():
            self._add(tree.body[0], module)
        self._walk(tree, {**own, **names, **self._instances(tree, names)}, None)

    def _imports(self, tree: ast.AST, names: Mapping[str, str]) -> dict[str, str]:
        for node in _own_nodes(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._add(node, alias.name)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._add(node, f"{node.module}.{alias.name}")
        return {**names, **imported(tree)}

    def _instances(self, tree: ast.AST, names: Mapping[str, str]) -> dict[str, str]:
        """Names that are assigned once, with the result of an upstream constructor or an attribute of it."""
        found: dict[str, str] = {}
        values = _assigned_once(_own_nodes(tree))
        for _ in range(2):  # the second time for names that are assigned attributes of the first ones
            for target, value in values.items():
                name = self._dotted(value, {**names, **found})
                if is_upstream(name) and "()" in name:
                    found[target] = name
        return found

    def _walk(self, tree: ast.AST, names: dict[str, str], owner: str | None) -> None:
        for node in ast.iter_child_nodes(tree):
            self._walk_one(node, names, owner)

    def _walk_one(self, node: ast.AST, names: dict[str, str], owner: str | None) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node, names, owner)
        elif isinstance(node, ast.ClassDef):
            self._class(node, names)
        else:
            self._expression(node, names, owner)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, str], owner: str | None) -> None:
        for outside in [*node.decorator_list, node.args, *filter(None, [node.returns])]:
            self._expression(outside, names, owner)
        local = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        local |= {n.id for n in _own_nodes(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner = self._imports(node, {key: value for key, value in names.items() if key not in local})
        if (module := self._hooks.get(node.name)) and node.args.args:
            inner[node.args.args[0].arg] = module
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg) and (declared := _declared(argument.annotation, names)):
                inner[argument.arg] = declared
        inner |= self._instances(node, inner)
        for statement in node.body:
            self._walk_one(statement, inner, owner)

    def _class(self, node: ast.ClassDef, names: dict[str, str]) -> None:
        for outside in [*node.decorator_list, *node.bases, *node.keywords]:
            self._expression(outside, names, None)
        base = self._upstream_base(f"{self._module}.{node.name}")
        methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
        inner = dict(names)
        for method in methods:
            inner |= self._instances(method, {**names, **imported(method)})
        inner = {key: value for key, value in inner.items() if key in names or key.startswith("self.")}
        if base:
            inner["super()"] = f"{base}()"
            for method in methods:
                static = any(ast.unparse(one) == "staticmethod" for one in method.decorator_list)
                if not method.name.startswith("__"):
                    self._add(method, f"{base}().{method.name}", method=_parameters(method, static), ours=True)
        for statement in node.body:
            self._walk_one(statement, inner, base)

    def _upstream_base(self, name: str, depth: int = 0) -> str | None:
        for base in self._classes.get(name, []) if depth < 9 else []:
            found = base if is_upstream(base) else self._upstream_base(base, depth + 1)
            if found:
                return found
        return None

    def _expression(self, node: ast.AST, names: dict[str, str], owner: str | None) -> None:
        if isinstance(node, ast.Call):
            self._call(node, names, owner)
        elif isinstance(node, ast.Attribute):
            name = self._dotted(node, names)
            if is_upstream(name) and ("()" not in name or _is_followed(name)):
                self._add(node, name)
            elif name is None and _is_followed(owner) and _short_text(node.value) == "self":
                self._add(node, f"{owner}().{node.attr}", ours=True)
        self._walk(node, names, owner)

    def _call(self, node: ast.Call, names: dict[str, str], owner: str | None) -> None:
        name, ours = self._dotted(node.func, names), False
        own_method = isinstance(node.func, ast.Attribute) and _short_text(node.func.value) == "self"
        if name is None and own_method and _is_followed(owner):
            name, ours = f"{owner}().{node.func.attr}", True
        if not is_upstream(name):
            return
        keys = [keyword.arg for keyword in node.keywords if keyword.arg]
        spread = [keyword.value for keyword in node.keywords if keyword.arg is None]
        for one in spread:
            keys += [key for key in self._keywords.of(one, self._module, names) if key not in keys]
        starred = any(isinstance(one, ast.Starred) for one in node.args)
        positional = sum(not isinstance(one, ast.Starred) for one in node.args)
        self._add(node, name, call=Call(positional, tuple(keys), bool(spread) or starred), ours=ours)

    def _dotted(self, node: ast.expr | None, names: Mapping[str, str]) -> str | None:
        if (text := _short_text(node)) in names:
            return names[text]
        if isinstance(node, ast.Attribute) and (base := self._dotted(node.value, names)):
            return f"{base}.{node.attr}"
        if isinstance(node, ast.Call) and (callee := self._dotted(node.func, names)):
            if not is_upstream(callee):
                return self._declared_result(callee)
            return f"{callee}()" if _returns_a_known_type(callee) and not callee.endswith("()") else None
        return None

    def _declared_result(self, function: str) -> str | None:
        module, _, name = function.rpartition(".")
        tree = self._modules.get(module)
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return _declared(node.returns, imported(tree))
        return None

    def _add(self, node: ast.AST, name: str, **details: object) -> None:
        if is_upstream(name):
            self.uses.append(Use(name, f"{self._file}:{getattr(node, 'lineno', 1)}", **details))


def _import_hooks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Function -> the module it is given, for each ``after_import("module", function)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _short_text(node.func) == "after_import":
            module, function = node.args
            if isinstance(module, ast.Constant) and isinstance(function, ast.Name):
                yield function.id, module.value


def _parameters(method: ast.FunctionDef | ast.AsyncFunctionDef, static: bool) -> str:
    """``batch, metrics=..., **kwargs``: the parameters without ``self``, annotations and defaults."""
    arguments = ast.parse(ast.unparse(method.args).join(["def f(", "): 0"])).body[0].args
    for one in ast.walk(arguments):
        if isinstance(one, ast.arg):
            one.annotation = None
    arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
    arguments.kw_defaults = [one and ast.Constant(...) for one in arguments.kw_defaults]
    if not static:
        (arguments.posonlyargs or arguments.args).pop(0)
    return ast.unparse(arguments)
