"""Walk through the statements and expressions of a function or module."""

import ast
from typing import Any

from omniq_verl.doctor.unread.calls import Call
from omniq_verl.doctor.unread.flow import NOTHING, Flow, Guess, Instance, Node, Pack, Values
from omniq_verl.doctor.unread.program import Class, Function, Module


def follow(flow: Flow, entry: Function, parameter: str) -> None:
    """Follow the configuration that ``entry`` gets as ``parameter`` until nothing new is found."""
    flow.add((entry, parameter), {Node(())})
    for path in flow.types:
        for each in flow.classes_at(Node(path)):
            for built in [one.methods["__post_init__"] for one in each.ancestors if "__post_init__" in one.methods]:
                flow.reach(built)
                flow.add((built, built.receiver), {Node(path, built=True)})
    for each in flow.program.modules.values():
        flow.reach(each)
    flow.reach(entry)
    for flow.guessing in Guess:
        flow.waiting.update(dict.fromkeys(each for each in flow.reached if not isinstance(each, Class)))
        while flow.waiting:
            unit = next(iter(flow.waiting))
            del flow.waiting[unit]
            flow.current = unit
            if isinstance(unit, Module):
                Walk(flow, None, unit).block(unit.tree.body)
            elif isinstance(unit, Function):
                Walk(flow, unit, unit.module).body(unit)


class Walk:
    """A walk through one function, or through the top level of a module."""

    def __init__(self, flow: Flow, function: Function | None, module: Module):
        self.flow = flow
        self.function = function
        self.module = module
        self._certain = True

    @property
    def always(self) -> bool:
        """Whether the current statement runs for every instance of a dataclass."""
        return self._certain and self.function is not None and self.function.name == "__post_init__"

    def body(self, function: Function) -> None:
        """Walk through the function, which is this walk's own."""
        args = function.tree.args
        if function.receiver and function.owner:
            own = function.owner if function.has("classmethod") else Instance(function.owner)
            self.flow.add((function, function.receiver), {own})
        if args.kwarg:
            self.flow.add((function, args.kwarg.arg), {Pack(function)})
        positional = reversed([*args.posonlyargs, *args.args])
        for each, default in [*zip(positional, reversed(args.defaults)), *zip(args.kwonlyargs, args.kw_defaults)]:  # noqa: B905
            self.flow.add((function, each.arg), self.value(default))
        if isinstance(function.tree, ast.Lambda):
            self.flow.add((function, "return"), self.value(function.tree.body))
        else:
            self.block(function.tree.body)

    # Statements

    def block(self, *blocks: list[ast.stmt]) -> None:
        """Walk through statements."""
        for lines in blocks:
            for line in lines:
                self._statement(line)

    def _maybe(self, *blocks: list[ast.stmt]) -> None:
        before, self._certain = self._certain, False
        self.block(*blocks)
        self._certain = before

    def _statement(self, line: ast.stmt) -> None:
        match line:
            case ast.ClassDef():
                self._class(line)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if line.decorator_list:
                named = self._variable(line.name) if self.function else self.flow.program.functions.get(line.name, [])
                self._decorate(line, [each for each in named if isinstance(each, Function) and each.tree is line])
            case ast.If():
                self._branch(line)
            case ast.Assign(targets, value):
                for target in targets:
                    self.assign(target, self.value(value))
            case ast.AnnAssign(target, _, value) | ast.AugAssign(target, _, value):
                self.assign(target, self.value(value))
            case ast.Return(value):
                self.flow.add((self.function, "return"), self.value(value))
            case ast.Expr(value) | ast.Assert(value):  # the message of an assertion does not use what it names
                self.value(value)
            case ast.For(target, source, body, orelse) | ast.AsyncFor(target, source, body, orelse):
                self.assign(target, self._elements(source))
                self._maybe(body, orelse)
            case ast.While(test, body, orelse):
                self.value(test)
                self._maybe(body, orelse)
            case ast.With(items, body) | ast.AsyncWith(items, body):
                for item in items:
                    self.assign(item.optional_vars, self.value(item.context_expr))
                self.block(body)
            case ast.Match(subject, cases):
                self.value(subject)
                self._maybe(*(case.body for case in cases))
            case ast.Try(body, handlers, orelse, finalbody):
                self.block(body)
                self._maybe(orelse, *(handler.body for handler in handlers))
                self.block(finalbody)

    def _branch(self, line: ast.If) -> None:
        self.value(line.test)
        decided = self._decided(line.test)
        if decided is None:
            self._maybe(line.body, line.orelse)
        else:
            self.block(line.body if decided else line.orelse)

    def _decided(self, test: ast.expr) -> bool | None:
        """The outcome of comparing an assumed setting with constants; None for anything else."""
        if not isinstance(test, ast.Compare) or len(test.ops) != 1:
            return None
        if isinstance(test.left, ast.Name) and test.left.id == "__name__":
            return False  # a separate program
        nodes = [each for each in self.value(test.left) if isinstance(each, Node)]
        found = {self.flow.assumed.get(each.path) for each in nodes}
        try:
            right = ast.literal_eval(test.comparators[0])
        except ValueError:
            return None
        if len(found) != 1 or None in found:
            return None
        match test.ops[0]:
            case ast.Eq() | ast.NotEq():
                return (found == {right}) == isinstance(test.ops[0], ast.Eq)
            case ast.In() | ast.NotIn():
                return (found <= set(right)) == isinstance(test.ops[0], ast.In)
        return None

    def _class(self, line: ast.ClassDef) -> None:
        owner = next(each for each in self.flow.program.classes[line.name] if each.tree is line)
        for each in line.body:
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                self.flow.add((owner, each.targets[0].id), self.value(each.value))
        self._decorate(line, [owner])

    def _decorate(self, line: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, defined: list[Any]) -> None:
        for each in line.decorator_list:  # for example of a registry
            for decorator in self.value(each):
                if isinstance(decorator, Function) and decorator.parameters:
                    self.flow.reach(decorator)
                    self.flow.add((decorator, decorator.parameters[0]), defined)

    def assign(self, target: ast.expr | None, values: Values) -> None:
        """Add possible values of a variable, attribute or item."""
        match target:
            case ast.Name(name):
                self.flow.add((self.function or self.module, name), values)
            case ast.Tuple(parts) | ast.List(parts):
                for part in parts:
                    self.assign(part, values)
            case ast.Starred(inner):
                self.assign(inner, values)
            case ast.Attribute(owner, name):
                self.flow.set_attribute(self.value(owner), name, values, self.always)
            case ast.Subscript(owner, index):
                names = self.names(index)
                for name in names:
                    self.flow.set_attribute(self.value(owner), name, values, self.always)
                if not names:
                    self.assign(owner, values)  # the container represents its items

    # Expressions

    def value(self, node: ast.expr | None) -> Values:
        """Possible values of an expression."""
        match node:
            case ast.Constant(str() as text):
                return frozenset({text if self.flow.names.issuperset(text.split(".")) else ""})
            case ast.Name(name):
                return self._variable(name)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript():
                return self._item(node)
            case ast.Call():
                return Call(self, node).value()
            case ast.BoolOp(_, parts) | ast.Tuple(parts) | ast.List(parts) | ast.Set(parts):
                return self._union(*parts)
            case ast.IfExp():
                self.value(node.test)
                decided = self._decided(node.test)
                return self._union(*([node.body] * (decided is not False) + [node.orelse] * (decided is not True)))
            case ast.NamedExpr(target, source):
                self.assign(target, self.value(source))
                return self.value(source)
            case ast.Await(source) | ast.Starred(source):
                return self.value(source)
            case ast.Yield(source) | ast.YieldFrom(source):
                self.flow.add((self.function, "return"), self.value(source))
                return NOTHING
            case ast.Dict():
                return self._display(node)
            case ast.Lambda():
                return self._lambda(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.Compare():
                return self._compare(node)
        for child in ast.iter_child_nodes(node) if node else ():
            if isinstance(child, ast.expr):
                self.value(child)
        return NOTHING

    def names(self, node: ast.expr | None) -> list[str]:
        """Possible names that an expression evaluates to."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        return self.flow.constants(self.value(node))

    def _union(self, *nodes: ast.expr) -> Values:
        return NOTHING.union(*(self.value(each) for each in nodes))

    def _variable(self, name: str) -> Values:
        scope, found = self.function, NOTHING
        while scope is not None:
            found |= self.flow.get((scope, name)) | {scope.inner[name] for name in {name} & scope.inner.keys()}
            scope = scope.outer
        found |= self.flow.get((self.module, name))
        return found or frozenset(self.flow.program.named(self.module, name))

    def _attribute(self, node: ast.Attribute) -> Values:
        found, owner = NOTHING, self.value(node.value)
        for each in owner:
            if isinstance(each, Node):
                found |= self.flow.key(each, node.attr)
            elif isinstance(each, Instance):
                found |= self.flow.member(each.of, node.attr)
            elif isinstance(each, Class):
                found |= self.flow.member(each, node.attr)
        if not owner and isinstance(node.value, ast.Name):
            module = self.flow.program.modules.get(self.module.imports.get(node.value.id, ""))
            found |= frozenset(self.flow.program.named(module, node.attr)) if module else NOTHING
        return found

    def _item(self, node: ast.Subscript) -> Values:
        owner, names = self.value(node.value), self.names(node.slice)
        found = NOTHING
        for each in owner:
            if isinstance(each, Node):
                found |= self.flow.keys(each, names) if names or not _is_number(node.slice) else {each}
            elif isinstance(each, Pack):
                found |= self.flow.unpacked(each, names)
            else:
                found |= {each}
        return found

    def _elements(self, node: ast.expr) -> Values:
        found = self.value(node)
        packs = [each for each in found if isinstance(each, Pack)]
        return found.union(*(self.flow.unpacked(each, []) for each in packs))

    def _display(self, node: ast.Dict) -> Values:
        pack, copied = Pack(node), NOTHING
        for key, each in zip(node.keys, node.values, strict=True):
            if key is None:  # {**other}
                copied |= self.value(each)
            for name in self.names(key) or ["*"]:
                self.flow.pack(pack, name, self.value(each))
        return copied | {pack}

    def _lambda(self, node: ast.Lambda) -> Values:
        if node not in self.flow.lambdas:
            made = Function("<lambda>", node, self.module, None, self.function)
            self.flow.lambdas[node] = made
            self.flow.reach(made)
        return frozenset({self.flow.lambdas[node]})

    def _comprehension(self, node: Any) -> Values:
        for each in node.generators:
            self.assign(each.target, self._elements(each.iter))
            for test in each.ifs:
                self.value(test)
        if isinstance(node, ast.DictComp):
            self.value(node.key)
        return self.value(node.value if isinstance(node, ast.DictComp) else node.elt)

    def _compare(self, node: ast.Compare) -> Values:
        self.value(node.left)
        for operator, each in zip(node.ops, node.comparators, strict=True):
            right = self.value(each)
            if isinstance(operator, ast.In | ast.NotIn):
                for owner in right:
                    if isinstance(owner, Node) and (names := self.names(node.left)):
                        self.flow.keys(owner, names)
        return NOTHING


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Slice) or (isinstance(node, ast.Constant) and isinstance(node.value, int))
