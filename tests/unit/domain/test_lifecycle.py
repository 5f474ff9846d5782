from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from svc.domain import lifecycle
from svc.domain.lifecycle import FINISHED, TRANSITIONS, UNFINISHED, WAITING, JobState, Verb

ROOT = Path(__file__).parents[3]
WORDS = {state.word for state in JobState}
#: So many states side by side are a list of states.
LISTED = 3


def test_every_transition_leads_to_the_state_in_the_picture():
    assert {(state.word, verb.word): to.word for (state, verb), to in TRANSITIONS.items()} == {
        ("scheduled", "due"): "ready",
        ("ready", "lease"): "leased",
        ("leased", "ack"): "succeeded",
        ("ready", "take"): "succeeded",
        ("leased", "retry_later"): "scheduled",
        ("leased", "retry"): "ready",
        ("leased", "give_up"): "dead",
        ("leased", "release"): "ready",
        ("ready", "cancel"): "cancelled",
        ("scheduled", "cancel"): "cancelled",
        ("leased", "cancel"): "cancelled",
        ("dead", "requeue"): "ready",
    }


def test_the_table_has_each_verb_and_each_state():
    assert {verb for _, verb in TRANSITIONS} == set(Verb)
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(JobState)


def test_only_a_dead_job_comes_back():
    assert [state for state, _ in TRANSITIONS if state.finished] == [JobState.DEAD]


def test_the_groups_of_states_follow_from_the_table():
    assert (FINISHED, WAITING) == (
        (JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED),
        (JobState.READY, JobState.SCHEDULED),
    )
    assert {*UNFINISHED, *FINISHED} == set(JobState)


def test_readme_has_the_picture_of_the_module_with_each_state_and_each_verb():
    picture = re.compile(r"^( *)submit\(delay\).*?cancelled.*?$", re.DOTALL | re.MULTILINE)
    drawn = [
        textwrap.dedent(found[0])
        for page in (Path(lifecycle.__file__), ROOT / "README.md")
        if (found := picture.search(page.read_text(encoding="utf-8")))
    ]
    assert drawn[0] == drawn[1]
    assert not [word for word in (*WORDS, *(verb.word for verb in Verb)) if word not in drawn[0]]


def lists_of_states(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the places in a module that name several states side by side."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            each = node.keys if isinstance(node, ast.Dict) else node.elts
            words = {part.value for part in each if isinstance(part, ast.Constant)} & WORDS
            members = {
                ast.unparse(part) for part in each if part is not None and "JobState." in ast.unparse(part)
            }
            if max(len(words), len(members)) >= LISTED:
                yield node


def test_no_other_module_lists_the_states():
    files = sorted((ROOT / "service" / "svc").rglob("*.py"))
    found = [
        f"{file.name}:{node.lineno}"
        for file in files
        if file != Path(lifecycle.__file__)
        for node in lists_of_states(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found
    assert list(lists_of_states(ast.parse("STATES = ('ready', 'leased', 'dead')"))), "the search finds one"


def test_the_numbers_are_those_in_journals():
    """One byte of a chunk's state array each: never to be renumbered."""
    assert [(state.value, state.word) for state in JobState] == [
        (0, "ready"), (1, "scheduled"), (2, "leased"), (3, "succeeded"), (4, "dead"), (5, "cancelled"),
    ]  # fmt: skip
