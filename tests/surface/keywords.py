"""Finds the keywords behind ``**settings`` in a call, where the dictionary is written out in the package."""

import ast
from collections.abc import Iterator, Mapping


class Keywords:
    """Reads dictionaries; those that come from elsewhere have no known keys."""

    def __init__(self, modules: Mapping[str, ast.Module]) -> None:
        self._modules = modules

    def of(self, node: ast.expr, module: str, names: Mapping[str, str]) -> list[str]:
        """Keys the dictionary may have, as far as they are constants in the source.

        Args:
            node: the expression after ``**``.
            module: the module it stands in.
            names: local name -> dotted name.
        """
        return list(dict.fromkeys(self._keys(node, module, names, 0)))

    def _keys(self, node: ast.expr, module: str, names: Mapping[str, str], depth: int) -> Iterator[str]:
        if depth > 5:
            return
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    yield from self._keys(value, module, names, depth + 1)
                elif isinstance(key, ast.Constant):
                    yield key.value
        elif isinstance(node, ast.IfExp):
            yield from self._keys(node.body, module, names, depth + 1)
            yield from self._keys(node.orelse, module, names, depth + 1)
        elif isinstance(node, ast.BinOp):
            yield from self._keys(node.left, module, names, depth + 1)
            yield from self._keys(node.right, module, names, depth + 1)
        elif isinstance(node, ast.Name):
            for value in self._assigned(node, module):
                yield from self._keys(value, module, names, depth + 1)
        elif isinstance(node, ast.Call):
            yield from self._returned(names.get(ast.unparse(node.func), ""), depth)

    def _assigned(self, node: ast.Name, module: str) -> Iterator[ast.expr]:
        """What the function around a name assigns to it; its later items are not looked for."""
        around = [
            function
            for function in ast.walk(self._modules[module])
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            and function.lineno <= node.lineno <= function.end_lineno
        ]
        for one in ast.walk(around[-1]) if around else ():
            targets = getattr(one, "targets", [getattr(one, "target", None)])
            value = getattr(one, "value", None)  # the target of a loop has none
            if value is not None and any(isinstance(target, ast.Name) and target.id == node.id for target in targets):
                yield value

    def _returned(self, function: str, depth: int) -> Iterator[str]:
        module, _, name = function.rpartition(".")
        for node in self._modules[module].body if module in self._modules else ():
            if isinstance(node, ast.FunctionDef) and node.name == name:
                names = {one.name: f"{module}.{one.name}" for one in self._modules[module].body if hasattr(one, "name")}
                for one in ast.walk(node):
                    if isinstance(one, ast.Return) and one.value:
                        yield from self._keys(one.value, module, names, depth + 1)
