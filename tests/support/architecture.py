"""The way of a job, as docs/architecture.md tells it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.readme import section
from tests.support.svc import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "service" / "svc"
_LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./service/svc/([\w/]+\.py)\)")
_ROW = re.compile(r"^\| \[`([\w/]+\.py)`\]", re.MULTILINE)


@dataclass(frozen=True)
class Way:
    """The files and functions that the page names.

    Attributes:
        steps: the linked functions, each as (file, qualified name), in order.
        support: the files that a job enters beside those of the steps.
        clock: the files that some jobs enter, as the time has come for other work.
        most: how many files a warm job enters at most, apart from those of the clock.
    """

    steps: Sequence[tuple[str, str]]
    support: Sequence[str]
    clock: Sequence[str]
    most: int

    @property
    def files(self) -> list[str]:
        """The files of the steps, each once, in order."""
        return list(dict.fromkeys(file for file, _ in self.steps))


def read_way(page: Path = PAGE) -> Way:
    """Return the way of a job in *page*."""
    way, support = section("The way of a job", page), section("Files beside the way", page)
    beside, _, clock = support.partition("\n### By the clock\n")
    (most,) = re.findall(r"at most \*\*(\d+) files\*\*", way)
    steps = [(file, name) for name, file in _LINK.findall(way)]
    return Way(steps, _ROW.findall(beside), _ROW.findall(clock), int(most))


def objections(way: Way, jobs: Sequence[Mapping[str, Collection[str]]]) -> list[str]:
    """Return all differences between *way* and the entered functions of traced jobs, by their files."""
    named = {*way.files, *way.support, *way.clock}
    entered = {file for job in jobs for file in job}
    always = set.intersection(*(set(job) for job in jobs))
    found = [f"{file} is entered, and the page does not name it" for file in sorted(entered - named)]
    found += [f"{file} is of the way, and no job enters it" for file in way.files if file not in entered]
    found += [f"{file} is support, and no job enters it" for file in way.support if file not in entered]
    found += [
        f"{file} is said to be of the clock, and every job enters it"
        for file in sorted(always & {*way.clock})
    ]
    for file, name in way.steps:
        if not any(name in job.get(file, ()) for job in jobs):
            found.append(f"{name} of {file} is a step, and no job enters it")
    for number, job in enumerate(jobs):
        count = len(job.keys() - {*way.clock})
        if count > way.most:
            found.append(f"job {number} enters {count} files, and the page allows {way.most}")
    return found


def lines_of(file: str, name: str) -> range:
    """Return the lines of a function or class, by its qualified name.

    Raises:
        KeyError: there is none.
    """
    body: Sequence[ast.stmt] = ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and node.name == part
        ]
        if not found:
            raise KeyError(f"{file} has no {name}")
        body = found[0].body
    first = min([found[0].lineno, *(each.lineno for each in found[0].decorator_list)])
    return range(first, (found[0].end_lineno or first) + 1)
