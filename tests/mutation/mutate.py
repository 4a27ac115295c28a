"""Small faults to put into a module: those of cosmic-ray, and parts left out, which it has not."""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SWAPS = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_FloorDiv", "Pow_Mul")
BITS = ("RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd")
LEFT_OUT = re.compile(
    r"NoOp|Variable|RemoveDecorator"
    r"|ReplaceBinaryOperator_(?!(" + "|".join((*SWAPS, *BITS)) + ")$)"
    r"|ReplaceComparisonOperator_(?!Is_IsNot$|IsNot_Is$).*Is"
)
"""Of two operators that break a line alike one is enough, and ``is`` for ``==`` is mostly no fault."""


@dataclass(frozen=True)
class Mutant:
    """One fault: its line in the file (from 1), what was done there, and the whole module with it."""

    line: int
    what: str
    source: str


@dataclass(frozen=True)
class _Candidate:
    line: int
    column: int
    operator: str
    make: Callable[[], str | None]


def mutants(source: str, limit: int | None, seed: int) -> list[Mutant]:
    """At most ``limit`` faults of a module: a random one at each place before a second one at any."""
    places: dict[tuple[int, int], list[_Candidate]] = defaultdict(list)
    for candidate in (*_of_cosmic_ray(source), *_left_out(source)):
        places[candidate.line, candidate.column].append(candidate)
    draw = random.Random(seed)
    columns = [draw.sample(found, len(found)) for _, found in sorted(places.items())]
    draw.shuffle(columns)
    depth = max(map(len, columns), default=0)
    ordered = (column[row] for row in range(depth) for column in columns if row < len(column))
    plain, lines = _meaning(source), source.splitlines()
    chosen: list[Mutant] = []
    for candidate in ordered:
        if len(chosen) == limit:
            break
        changed = candidate.make()
        if changed is not None and _meaning(changed) not in (None, plain):
            text = f"{candidate.operator} @{candidate.column}: {lines[candidate.line - 1].strip()}"
            chosen.append(Mutant(candidate.line, text, changed))
    return chosen


class _Plain(ast.NodeTransformer):
    """Without what has no effect when a module runs: annotations (postponed ones), ``__all__``, the ``strict`` of
    ``zip``, which asserts what holds, trailing colons of an index, and which arguments go by name only."""

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults += [default for default in node.kw_defaults if default is not None]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.slice, ast.Tuple) and not any(_is_dots(part) for part in node.slice.elts):
            while node.slice.elts and ast.unparse(node.slice.elts[-1]) == ":":
                node.slice.elts.pop()
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) == "zip":
            node.keywords = []
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if ast.unparse(node.targets[0]) == "__all__" else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _meaning(source: str) -> str | None:
    try:
        return ast.dump(_Plain().visit(ast.parse(source)))
    except SyntaxError:
        return None


def _of_cosmic_ray(source: str) -> Iterator[_Candidate]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        if LEFT_OUT.search(name):
            continue
        operator = get_operator(name)()
        found = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(found):

            def make(operator: object = operator, occurrence: int = occurrence) -> str | None:
                return mutate_code(source, operator, occurrence)

            yield _Candidate(line, column, name.removeprefix("core/"), make)


_STATEMENTS = (ast.Expr, ast.Assign, ast.AugAssign, ast.Return, ast.Raise)


def _left_out(source: str) -> Iterator[_Candidate]:
    """An element of a list or tuple, a keyword argument, or a statement left out (None is returned, then)."""
    for number, node in enumerate(ast.walk(ast.parse(source))):
        for field, index, part in _parts(node):

            def make(number: int = number, field: str = field, index: int = index) -> str:
                tree = ast.parse(source)
                body = getattr(list(ast.walk(tree))[number], field)
                del body[index]
                if not body and field == "body":
                    body.append(ast.Pass())
                return ast.unparse(tree)

            what = " ".join(ast.unparse(part).split())
            yield _Candidate(part.lineno, part.col_offset, f"LeaveOut {what[:60]}", make)


def _parts(node: ast.AST) -> Iterator[tuple[str, int, ast.expr | ast.keyword | ast.stmt]]:
    if isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield from (("elts", index, part) for index, part in enumerate(node.elts))
    if isinstance(node, ast.Call):
        yield from (("keywords", index, part) for index, part in enumerate(node.keywords))
    for field in ("body", "orelse"):
        body = getattr(node, field, None)
        if isinstance(body, list) and not isinstance(node, ast.Module):  # a module's names are imported elsewhere
            for index, part in enumerate(body):
                if isinstance(part, _STATEMENTS) and not isinstance(getattr(part, "value", None), ast.Constant):
                    yield field, index, part
