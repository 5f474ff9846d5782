"""A command is declared in one place: its rights, its place on the wire and its reference are derived."""

from __future__ import annotations

import ast
from pathlib import Path

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain.apply import HANDLER_MODULES, HANDLERS, READERS
from tools.commands import markdown

ROOT = Path(__file__).parents[3]
#: From this many names of commands on, an expression is a list of commands; a union of a few has fewer.
LISTED = 8


def test_the_reference_is_made_of_the_declarations():
    page = (ROOT / "docs" / "commands.md").read_text()
    assert page == markdown(), "run: python -m tools.commands > docs/commands.md"


def test_every_command_has_exactly_one_handler():
    tables = [set(HANDLERS), set(READERS), set(QueueHost.OWN_COMMANDS)]
    assert set.union(*tables) == set(c.COMMANDS)
    assert sum(map(len, tables)) == len(c.COMMANDS)
    handlers = [*HANDLERS.values(), *READERS.values()]
    assert {handler.__module__ for handler in handlers} == {module.__name__ for module in HANDLER_MODULES}


def test_there_is_no_other_list_of_the_commands():
    """To add a command is to touch its declaration, its handler's module, a test and the reference."""
    lists = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "service").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict | ast.BinOp)
        and len(_commands_in(node)) >= LISTED
    ]
    assert lists == []


def _commands_in(expression: ast.AST) -> set[str]:
    """Return the classes of commands that an expression names."""
    known = {kind.__name__ for kind in c.COMMANDS}
    nodes = [node for node in ast.walk(expression) if isinstance(node, ast.Attribute)]
    return known & {node.attr for node in nodes}
