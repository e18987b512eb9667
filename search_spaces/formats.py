"""Written forms of genotypes in the field: all are read, and some are written (standard library only).

The form is recognised from the content. Ours, see :class:`search_spaces.genotype.Genotype`. The cell form of DARTS
and its heirs, ``{"normal": [[operation, input], ...], "normal_concat": [...], "reduce": ..., "reduce_concat": ...}``,
two entries for each node; as JSON, also as the bare list of the four values, or as the text
``Genotype(normal=[...], normal_concat=range(2, 6), ...)`` of Python files and logs, which is parsed and never executed.
Its edge form, whose entries are ``[operation, to, from]``, any number for each node (FairDARTS, arXiv 1911.12126). And
the strings of NAS-Bench-201 (arXiv 2001.00326), ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

Cell forms number states as we do: 0 and 1 are the cell's inputs, 2 is the first node. They do not say how many cells
there are; the cells at L//3 and 2L//3 are the reduction cells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn, TypeGuard

from search_spaces.errors import GenotypeError
from search_spaces.genotype import MAX_BYTES, NONE, NUM_INPUTS, CellGenotype, Edge, Genotype
from search_spaces.json_reader import JsonError, parse_json
from search_spaces.named.nas_bench_201 import NAS_BENCH_201_OPERATIONS
from search_spaces.stages import NUM_STAGES, reductions

__all__ = [
    "CELLS_OF_FORM",
    "from_cells",
    "from_nas_bench_201",
    "parse_any_genotype",
    "to_nas_bench_201",
]

CELLS_OF_FORM = {"cells": 20, "nas_bench_201": 15}
"""Cells of a network whose form does not say how many: those of the papers' CIFAR networks."""
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_NODES_OF_STRING = 3  # besides the input
# Larger networks would take too long to build.
_MOST_CELLS, _MOST_NODES, _MOST_ENTRIES, _MOST_EDGES = 200, 64, 2_000, 20_000
_CALL = (
    "one Genotype(normal=[(operation, input), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=[...]), in "
    "a file of its own, in a Python file that names no other, or at the end of a line of a log"
)
# The names of search_spaces.ops.OPERATIONS, without torch; a test checks that they are equal.
_OPERATIONS = (
    *(f"sep_conv_{size}" for size in ("3x3", "5x5", "7x7")),
    *("dil_conv_3x3", "dil_conv_5x5", "dw_conv_3x3", "dw_conv_5x5", "conv_7x1_1x7"),
    *("nor_conv_1x1", "nor_conv_3x3", "group_conv_3x3", "noise"),
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect", NONE),
)


def parse_any_genotype(content: str | bytes, origin: str = "genotype", num_cells: int | None = None) -> Genotype:
    """Parse a genotype in any of the forms.

    Args:
        content: JSON, a string of NAS-Bench-201 in quotes or not, or text with one ``Genotype(...)``: a Python
            file that only names things, or a log.
        origin: Where it came from, for error messages.
        num_cells: Cells of a network whose form does not say; None takes :data:`CELLS_OF_FORM`.

    Raises:
        GenotypeError: If it is in none of the forms, has an unknown operation, an edge from a later state, a node
            without inputs or a newer schema, or if the cells cannot be divided into stages.
    """
    text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else content
    if len(text) <= MAX_BYTES and text.lstrip("\ufeff \t\r\n").startswith("|"):
        return from_nas_bench_201(text.strip("\ufeff \t\r\n"), num_cells, origin)
    try:
        data = parse_json(content, origin, MAX_BYTES)
    except JsonError as error:
        if len(text) <= MAX_BYTES and "Genotype(" in text:
            return from_cells(_fields_of_code(text.lstrip("\ufeff"), origin), num_cells, origin)
        raise GenotypeError(error.argument, error.given, error.allowed) from None
    if isinstance(data, dict) and "kind" not in data and isinstance(data.get("arch_str"), str):
        data = data["arch_str"]  # as the benchmark's table and `dnad-ray count --json` call it
    if isinstance(data, list) and len(data) == len(_FIELDS) and all(isinstance(part, list) for part in data):
        data = dict(zip(_FIELDS, data, strict=True))  # as JSON writes a named tuple
    if isinstance(data, str):
        return from_nas_bench_201(data, num_cells, origin)
    if isinstance(data, dict) and "kind" not in data and ("normal" in data or "reduce" in data):
        return from_cells(data, num_cells, origin)
    genotype = Genotype.from_dict(data, origin)
    _check_names((edge.operation for cell in genotype.cells for node in cell.nodes for edge in node), origin)
    return genotype


def from_cells(data: dict[str, Any], num_cells: int | None = None, origin: str = "genotype") -> Genotype:
    """Build a genotype from the cell form or the edge form, see the module.

    Args:
        data: The four fields; others are ignored.
        num_cells: Cells of the network; None takes 20.
        origin: Where it came from, for error messages.

    Raises:
        GenotypeError: As :func:`parse_any_genotype` does.
    """
    missing = [name for name in _FIELDS if name not in data]
    if missing:
        _refuse(origin, f"no {', '.join(missing)}", f"an object with {', '.join(_FIELDS)}")
    count = CELLS_OF_FORM["cells"] if num_cells is None else num_cells
    _check_count(count)
    kinds = [_cell(data, name, origin) for name in ("normal", "reduce")]
    # All cells of a genotype have the same number of nodes, so the smaller one gets empty nodes outside its output.
    most = max(len(cell.nodes) for cell in kinds)
    normal, reduction = (
        replace(cell, nodes=cell.nodes + ((),) * (most - len(cell.nodes)), concat=cell.outputs) for cell in kinds
    )
    halving = reductions(count)
    num_edges = count * max(cell.num_operations for cell in kinds)
    if num_edges > _MOST_EDGES:
        _refuse(origin, f"up to {num_edges} edges in {count} cells", f"at most {_MOST_EDGES}")
    return Genotype(tuple(reduction if index in halving else normal for index in range(count)))


def from_nas_bench_201(text: str, num_cells: int | None = None, origin: str = "genotype") -> Genotype:
    """Build a genotype from a string of NAS-Bench-201.

    Args:
        text: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``; an input may occur once for each node.
        num_cells: Cells of the network, a multiple of the 3 stages; None takes 15.
        origin: Where it came from, for error messages.

    Raises:
        GenotypeError: As :func:`parse_any_genotype` does.

    >>> text = "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    >>> genotype = from_nas_bench_201(text)
    >>> [[tuple(edge) for edge in node] for node in genotype.cells[0].nodes][1]
    [('nor_conv_3x3', 0), ('none', 1)]
    >>> to_nas_bench_201(genotype) == text
    True
    """
    count = CELLS_OF_FORM["nas_bench_201"] if num_cells is None else num_cells
    if not NUM_STAGES <= count <= _MOST_CELLS or count % NUM_STAGES:
        _refuse("number of cells", count, f"a multiple of the {NUM_STAGES} stages, from {NUM_STAGES} to {_MOST_CELLS}")
    parts = text.split("+")
    if len(parts) != _NODES_OF_STRING:
        _refuse(origin, _short(text), "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    nodes = []
    for node, part in enumerate(parts):
        where = f"{origin} node {node + 1}"
        if part.strip("|") == "":
            _refuse(where, part, "at least one input, such as none~0")
        if not re.fullmatch(r"\|([^|~]+~\d{1,3}\|)+", part):
            _refuse(where, _short(part), "inputs such as |nor_conv_3x3~0|skip_connect~1|")
        edges = [Edge(name, int(source)) for name, source in (entry.split("~") for entry in part[1:-1].split("|"))]
        for edge in edges:
            if edge.operation not in NAS_BENCH_201_OPERATIONS:
                _refuse(f"{where} operation", _short(edge.operation), ", ".join(NAS_BENCH_201_OPERATIONS))
            if edge.source > node:
                _refuse(f"{where} input", edge.source, f"0 to {node}: what comes later would make a cycle")
        if len({edge.source for edge in edges}) != len(edges):
            _refuse(where, _short(part), "one operation for each input")
        nodes.append(tuple(edges))
    size = count // NUM_STAGES
    cell = CellGenotype(False, tuple(nodes), (_NODES_OF_STRING - 1,))
    first = replace(cell, reduction=True)
    cells = tuple(first if index and index % size == 0 else cell for index in range(count))
    return Genotype(cells, "nas_bench_201")


def to_nas_bench_201(genotype: Genotype) -> str:
    """Write a genotype as a string of NAS-Bench-201; missing edges become ``none``.

    Raises:
        GenotypeError: If it is not in that space, because of its skeleton, its number of nodes, different cells, an
            operation, or several operations on one edge.
    """
    if genotype.skeleton != "nas_bench_201" or genotype.num_nodes != _NODES_OF_STRING:
        _refuse("genotype", genotype.digest, "a network of NAS-Bench-201, which has 3 nodes besides the input")
    topologies = {cell.nodes for cell in genotype.pruned().cells}
    if len({cell.nodes for cell in genotype.cells}) > 1:
        if len(topologies) > 1:
            _refuse("genotype", genotype.digest, "one topology in all cells")
        nodes = topologies.pop()
    else:
        nodes = genotype.cells[0].nodes
    parts = []
    for node, edges in enumerate(nodes):
        chosen = dict.fromkeys(range(node + 1), NONE)
        for edge in edges:
            if edge.operation not in NAS_BENCH_201_OPERATIONS:
                _refuse("operation", edge.operation, ", ".join(NAS_BENCH_201_OPERATIONS))
            if chosen[edge.source] != NONE and edge.operation != NONE:
                _refuse(f"node {node + 1}, input {edge.source}", "several operations", "one operation for each input")
            if edge.operation != NONE:
                chosen[edge.source] = edge.operation
        parts.append("".join(f"|{operation}~{source}" for source, operation in chosen.items()) + "|")
    return "+".join(parts)


def _fields_of_code(text: str, origin: str) -> dict[str, Any]:
    """Return the fields of the one genotype in a Python file or a log, as plain data; nothing is executed.

    Of several under one name the last counts, as in a program, and as in the log of a search.
    """
    try:
        found = dict(_named_calls(ast.parse(text.strip()).body, origin))
    except GenotypeError:  # which is a ValueError
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # no program: perhaps a log
        found = dict(_logged_calls(text))
    if len(found) != 1:
        _refuse(origin, f"{len(found)} genotypes: {_short(', '.join(found))}" if found else _short(text), _CALL)
    ((_, call),) = found.items()
    try:
        return {keyword.arg: _plain(keyword.value, origin) for keyword in call.keywords if keyword.arg is not None}
    except RecursionError:
        _refuse(origin, _short(text), _CALL)


def _named_calls(statements: list[ast.stmt], origin: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield name and call of each genotype of a program that only imports and names things."""
    for statement in statements:
        if isinstance(statement, ast.Expr) and _is_genotype(statement.value):
            yield "", statement.value
        elif isinstance(statement, ast.Assign) and _is_genotype(statement.value):
            yield ast.unparse(statement.targets[0]), statement.value
        elif not isinstance(statement, ast.Import | ast.ImportFrom | ast.Assign) and not (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            _refuse(origin, _short(ast.unparse(statement)), _CALL)


def _logged_calls(text: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield name and call of each genotype of a log: at the end of a line, behind a time, a name and the like."""
    for line in text.splitlines():
        before, found, behind = line.partition("Genotype(")
        if found:
            try:
                call = ast.parse(f"{found}{behind}".strip(), mode="eval").body
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                continue
            if _is_genotype(call):
                yield re.split(r"\W+", before.rstrip(" \t=:"))[-1], call


def _is_genotype(node: ast.expr) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _name_of(node.func) == "Genotype" and not node.args


def _plain(node: ast.expr, origin: str) -> Any:
    """Return the plain data that an expression of a genotype says."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(entry, origin) for entry in node.elts]
    if isinstance(node, ast.Call) and not node.keywords:
        name, parts = _name_of(node.func), [_plain(argument, origin) for argument in node.args]
        if name == "range" and len(parts) == 2 and all(type(end) is int and 0 <= end <= _MOST_NODES for end in parts):
            return list(range(*parts))
        if name in ("list", "tuple") and len(parts) == 1 and isinstance(parts[0], list):
            return parts[0]
        if name in ("int", "int32", "int64") and len(parts) == 1 and type(parts[0]) is int:
            return parts[0]  # of numpy
    if isinstance(node, ast.Constant) and type(node.value) in (str, int):
        return node.value
    raise GenotypeError(origin, _short(ast.unparse(node)), _CALL)


def _name_of(function: ast.expr) -> str:
    """Return the last part of the name of a function: ``int64`` of ``numpy.int64``."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _cell(data: dict[str, Any], name: str, origin: str) -> CellGenotype:
    entries, where = data[name], f"{origin} {name}"
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, list) for entry in entries):
        _refuse(where, _short(entries), "a list of [operation, input] or of [operation, to, from]")
    if len(entries) > _MOST_ENTRIES:
        _refuse(where, f"{len(entries)} entries", f"at most {_MOST_ENTRIES}")
    if all(len(entry) == 2 and isinstance(entry[0], list) for entry in entries):
        entries = [one for pair in entries for one in pair]  # two entries, grouped by node
    sizes = {len(entry) for entry in entries if isinstance(entry, list)}
    if sizes not in ({2}, {3}) or not all(
        isinstance(entry, list) and isinstance(entry[0], str) and all(type(state) is int for state in entry[1:])
        for entry in entries
    ):
        _refuse(where, _short(entries), "entries that are all [operation, input], or all [operation, to, from]")
    _check_names((entry[0] for entry in entries), where)
    if sizes == {2}:
        if len(entries) % 2:
            _refuse(where, f"{len(entries)} entries", "two for each node")
        edges = [(NUM_INPUTS + index // 2, Edge(*entry)) for index, entry in enumerate(entries)]
    else:
        edges = [(to, Edge(operation, source)) for operation, to, source in entries]
    states = _concat(data[f"{name}_concat"], f"{where}_concat")
    last = max([to for to, _ in edges] + states)
    if last >= NUM_INPUTS + _MOST_NODES:
        _refuse(where, f"node {last}", f"at most {_MOST_NODES} nodes")
    nodes: list[list[Edge]] = [[] for _ in range(last + 1 - NUM_INPUTS)]
    for to, edge in edges:
        if to < NUM_INPUTS:
            _refuse(where, f"an edge into {to}", f"nodes from {NUM_INPUTS}; 0 and 1 are the inputs of the cell")
        if edge.source >= to:
            allowed = f"0 to {to - 1}: node {to} reads earlier states only, a later one would make a cycle"
            _refuse(f"{where} input of node {to}", edge.source, allowed)
        if edge.source < 0:
            _refuse(f"{where} input of node {to}", edge.source, f"0 to {to - 1}")
        nodes[to - NUM_INPUTS].append(edge)
    for node, inputs in enumerate(nodes):
        if not inputs:
            _refuse(where, f"node {node + NUM_INPUTS} without inputs", "nodes with one input at least, numbered from 2")
    outputs = tuple(state - NUM_INPUTS for state in states)
    return CellGenotype(name == "reduce", tuple(map(tuple, nodes)), outputs)


def _concat(states: Any, where: str) -> list[int]:
    if not isinstance(states, list) or not states or not all(type(state) is int for state in states):
        _refuse(where, _short(states), "a list of nodes such as [2, 3, 4, 5]")
    if len(set(states)) != len(states) or min(states) < NUM_INPUTS:
        _refuse(where, _short(states), f"each node once, nodes being numbered from {NUM_INPUTS}")
    return list(states)


def _check_names(names: Any, where: str) -> None:
    for name in names:
        if name not in _OPERATIONS:
            _refuse(f"{where} operation", _short(name), ", ".join(_OPERATIONS))


def _check_count(num_cells: int) -> None:
    if not NUM_STAGES <= num_cells <= _MOST_CELLS:
        _refuse("number of cells", num_cells, f"{NUM_STAGES} (one for each stage) to {_MOST_CELLS}")


def _refuse(argument: str, given: object, allowed: str) -> NoReturn:
    raise GenotypeError(argument, given, allowed)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
