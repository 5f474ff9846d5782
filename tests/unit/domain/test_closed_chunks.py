"""A chunk is changed by its own verbs alone: other modules read its public attributes, and write none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import svc
from svc.domain.chunk import Chunk
from svc.domain.columns import Columns
from svc.domain.job_states import JobStates

ROOT = Path(svc.__file__).parent
#: The modules that hold the data.
OWNERS: dict[Any, str] = {
    Chunk: "domain/chunk.py",
    JobStates: "domain/job_states.py",
    Columns: "domain/columns.py",
}
#: How other modules name a chunk or its columns.
NAMES = {"chunk", "kept", "columns"}
CHANGING = {"append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault", "sort"}
PUBLIC = {name for kind in OWNERS for name in kind.__slots__ if not name.startswith("_")}
PRIVATE = {name for kind in OWNERS for name in kind.__slots__ if name.startswith("_")}


def others() -> Iterator[Path]:
    return (path for path in ROOT.rglob("*.py") if str(path.relative_to(ROOT)) not in OWNERS.values())


def is_field(node: ast.AST) -> bool:
    """Return whether *node* is a public field of what other modules call a chunk or its columns."""
    return isinstance(node, ast.Attribute) and node.attr in PUBLIC and named(node.value) in NAMES


def named(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return named(value)
    return ""


def changes(tree: ast.AST) -> Iterator[str]:
    """Yield the statements of a module that change a field of a chunk, or look at a private one."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, value=value) if name in PRIVATE and named(value) in NAMES:
                yield ast.unparse(node)
            case ast.Attribute(ctx=ast.Store() | ast.Del()) if is_field(node):
                yield ast.unparse(node)
            case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()) if is_field(value):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr=verb, value=value)) if verb in CHANGING and is_field(value):
                yield ast.unparse(node)


def test_no_other_module_changes_a_chunk_or_looks_at_its_private_data():
    found = {str(path.relative_to(ROOT)): list(changes(ast.parse(path.read_text()))) for path in others()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "chunk.count += 1",
        "lease.chunk.has_gaps = True",
        "del kept.records[0]",
        "chunk.records[index] = record",
        "chunk.records.pop(index)",
        "chunk.columns.keys.append(key)",
        "states = span.chunk._states",
    ],
)
def test_such_a_change_would_be_found(line):
    assert list(changes(ast.parse(line)))


def test_each_public_field_of_a_chunk_is_declared_in_its_docstring():
    for kind in OWNERS:
        assert kind.__doc__ is not None
        names = {name for name in kind.__slots__ if not name.startswith("_")}
        assert {name for name in names if f"{name}" not in kind.__doc__.partition("Attributes:")[2]} == set()
