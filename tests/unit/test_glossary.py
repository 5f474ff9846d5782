"""The glossary and the code agree: its names exist, and its retired words are gone."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from itertools import pairwise

import pytest

from svc.cli.verbs import PROGRAM, CliGroup, CliVerb
from svc.telemetry.catalogue import MANAGER_METRICS, WORKER_METRICS
from tests.support.readme import section
from tests.support.svc import ROOT

PAGE = ROOT / "docs" / "glossary.md"
TABLES = ("The service", "The life of a job", "How jobs are kept and sent", "The journal")
#: Files that may have a retired word: this page, records of the past, texts of an example, and the former
#: names that the benchmarks still take.
HISTORY = (
    "docs/glossary.md", "docs/decisions/", "benchmarks/results/", "examples/wordcount/texts/", "CHANGELOG.md",
    "benchmarks/__main__.py",
    "tests/unit/test_glossary.py", "tests/integration/test_benchmarks.py",
)  # fmt: skip
TEXTS = {".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".sql"}
SEARCHED = ("service", "tests", "docs", "benchmarks", "tools", "examples", "README.md", "CONTRIBUTING.md")


def rows(title: str) -> list[list[str]]:
    """Return the cells of the rows of the table below a heading."""
    lines = [line for line in section(title, PAGE).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


DEFINED = [row for title in TABLES for row in rows(title)]
NAMES = sorted({name for *_, names in DEFINED for name in re.findall(r"`([^`]+)`", names)})
RETIRED = [retired for retired, _ in rows("Retired words")]


def exists(name: str) -> bool:
    """Return whether *name* is a module or one of its names, a command of `svc`, or a metric."""
    if name.startswith("svc_"):
        return name in {metric.name for metric in (*MANAGER_METRICS, *WORKER_METRICS)}
    if name.startswith("svc "):
        found: object = PROGRAM
        for word in name.split()[1:]:
            found = found.verbs.get(word) if isinstance(found, CliGroup) else None
        return isinstance(found, CliGroup | CliVerb)
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ImportError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_a_name_beside_a_word_exists(name: str):
    assert exists(name)


def test_a_name_that_does_not_exist_is_noticed():
    assert not exists("svc.domain.chunk.Batch")
    assert not exists("svc.domain.batch")
    assert not exists("svc jobs bury")
    assert not exists("svc_jobs_buried_total")


def test_each_word_is_defined_once_and_has_a_name_in_the_code():
    words = [word for row in DEFINED for word in re.findall(r"\*\*(.+?)\*\*", row[0])]
    assert sorted(words) == sorted(set(words))
    assert all("`" in names for *_, names in DEFINED)
    assert {"turn", "role", "ledger", "outcome", "answer"} <= set(words)


def extends_its_namesake(node: ast.ClassDef) -> bool:
    """Return whether the class is the users' form of a class with the same name, as `svc.Client` is."""
    return any(isinstance(base, ast.Attribute) and base.attr == node.name for base in node.bases)


def test_a_class_name_means_one_class():
    places = defaultdict(list)
    for file in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not extends_its_namesake(node):
                places[node.name].append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case, with those inside identifiers."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)
    return {part.lower() for part in parts}


def has_word(words: set[str], retired: str) -> bool:
    """Return whether *words* have *retired*, or its plural."""
    return bool(words & {retired, f"{retired}s"})


def test_retired_words_are_found_in_prose_and_in_identifiers():
    assert has_word(words_of("class _HeirLooms or def bury_child"), "bury")
    assert has_word(words_of("# the Crew's log"), "crew")
    assert not has_word(words_of("screws, indoors"), "crew")
    assert not has_word(words_of("screws, indoors"), "door")


def test_no_retired_word_stands_in_the_repository():
    paths = (
        path for name in SEARCHED for path in ((ROOT / name).rglob("*"), [ROOT / name])[name.endswith(".md")]
    )
    found = []
    for path in sorted(paths):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in TEXTS and not name.startswith(HISTORY):
            words = words_of(f"{name} {path.read_text(encoding='utf-8')}")
            found += [f"{name}: {retired}" for retired in RETIRED if has_word(words, retired)]
    assert found == []


def test_the_table_of_retired_words_is_in_use():
    assert len(RETIRED) > 10
    assert all(word.isalpha() for word in RETIRED)
    assert all(first != second for first, second in pairwise(sorted(RETIRED)))
