"""The server uses the verbs of the queue's host; the state and the journal stay behind it."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDERS = ("server", "app")
BEHIND = {"state", "journal", "commits"}
PACKAGE = Path(__file__).parents[3] / "service" / "svc"


def _is_host(value: ast.expr) -> bool:
    return ast.unparse(value).rpartition(".")[2].lstrip("_") == "host"


def test_the_server_reaches_nothing_through_the_host():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node)}"
        for folder in FOLDERS
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in BEHIND and _is_host(node.value)
    ]
    assert found == []
