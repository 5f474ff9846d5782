"""The recipes of docs/architecture.md: their files exist, are few, and nothing is declared twice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields

import msgspec

from svc import settings
from svc.cli.documents import job_document
from svc.domain.job_view import JobView
from svc.domain.limits import Limits
from svc.telemetry.catalogue import MANAGER_METRICS, WORKER_METRICS
from tests.support.readme import section
from tests.support.svc import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "service" / "svc"
#: The most files of each recipe, without its test.
FILES = {
    "A command": 3,
    "A setting": 2,
    "A job field": 3,
    "A state": 3,
    "A metric": 3,
    "A log event": 3,
    "A CLI verb": 3,
    "A journal": 3,
}
#: From this many names of settings on, an expression is a list of settings; a call with a few is a use.
LISTED = 6


def recipes() -> dict[str, list[str]]:
    """Return the files that each recipe touches."""
    parts = re.split(r"^### ", section("Recipes", PAGE), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: re.findall(r"^\d+\. `([^`]+)`", part, re.MULTILINE) for part in parts}


def test_the_files_of_each_recipe_exist_and_are_few():
    found = recipes()
    assert found.keys() == FILES.keys()
    for title, files in found.items():
        assert 0 < len(files) <= FILES[title], title
        assert [file for file in files if not (ROOT / file).exists()] == [], title


# --- settings: commands and states have such tests beside their own (test_commands.py, test_lifecycle.py) ---


def names_of_settings() -> set[str]:
    classes = [each for name, each in vars(settings).items() if name.endswith("Settings")]
    return {field.name for each in (*classes, Limits) for field in fields(each)}


def lists_of(names: set[str], tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls, signatures, classes and literals that have many of *names*."""
    for node in ast.walk(tree):
        match node:
            case ast.Call():
                found = {keyword.arg for keyword in node.keywords}
            case ast.FunctionDef():
                found = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
            case ast.ClassDef():
                found = {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
            case ast.Tuple() | ast.List() | ast.Set():
                found = {str(each.value) for each in node.elts if isinstance(each, ast.Constant)}
            case ast.Dict():
                found = {str(each.value) for each in node.keys if isinstance(each, ast.Constant)}
            case _:
                continue
        if len(found & names) >= LISTED:
            yield node.lineno


def modules() -> Iterator[tuple[str, ast.AST]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def test_no_other_module_lists_the_settings():
    declared = {"settings.py", "domain/limits.py"}
    # A supervisor gets its settings as one value that it hands to its processes.
    declared |= {"worker/options.py", "app/worker.py"}
    found = [
        f"{name}:{line}"
        for name, tree in modules()
        if name not in declared
        for line in lists_of(names_of_settings(), tree)
    ]
    assert found == []


def test_a_second_list_of_settings_is_noticed():
    names = sorted(names_of_settings())[:LISTED]
    for source in (f"def f({', '.join(names)}): ...", f"f({'=1, '.join(names)}=1)", f"x = {names}"):
        assert list(lists_of(set(names), ast.parse(source))) == [1]


# --- fields of a job ------------------------------------------------------------------------------------


def example() -> JobView:
    return JobView(
        "o-1", "m:f", "mail", "dead", 3, "pickle", 1.0, key="k", finished_at=2.0, reason="r", timeout=5.0
    )


def test_each_field_of_a_job_is_in_the_json():
    assert {field.name for field in msgspec.structs.fields(JobView)} == job_document(example()).keys()


def test_the_text_of_a_job_shows_each_of_its_fields():
    (shown,) = (
        node
        for name, tree in modules()
        if name == "cli/jobs.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "_print_job"
    )
    read = {node.attr for node in ast.walk(shown) if isinstance(node, ast.Attribute)}
    elsewhere = {
        "_suspicions": {"suspicions", "suspect"},
        "_progress": {"progress"},
        "_checkpoint": {"checkpoint_bytes", "checkpoint_at"},
        "_stream": {"partial_results", "stream_bytes", "stream_number"},
    }
    assert all(f"{function}(job)" in ast.unparse(shown) for function in elsewhere)
    assert {field.name for field in msgspec.structs.fields(JobView)} - read == set().union(
        *elsewhere.values()
    )


# --- metrics --------------------------------------------------------------------------------------------


def test_each_metric_that_a_module_names_is_in_the_catalogue():
    names = {metric.name for metric in (*MANAGER_METRICS, *WORKER_METRICS)}
    prefixes = ("svc_job", "svc_queue", "svc_manager", "svc_journal", "svc_worker", "svc_consumer")
    unknown = [
        f"{name}: {node.value}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"svc_[a-z_]+", node.value)
        and node.value.startswith(prefixes)
        and node.value not in names
    ]
    assert unknown == []
