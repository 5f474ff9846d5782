"""svc takes no numbers from the generator that belongs to the tasks."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import svc
from svc.broker.backoff import Backoff
from svc.chance import CHANCE


def test_no_module_imports_the_generator_of_the_tasks():
    root = Path(svc.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(each.name == "random" for each in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    }
    assert found == {"chance.py"}


def test_pauses_follow_no_seed_and_take_no_number_from_a_seeded_generator():
    pauses = set[float]()
    for _ in range(5):
        random.seed(7)
        before = random.getstate()
        pauses.add(Backoff().fail())
        assert random.getstate() == before
    assert len(pauses) == 5
    assert 0.0 <= CHANCE.random() < 1.0
