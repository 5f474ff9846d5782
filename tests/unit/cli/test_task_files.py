"""Changes of the files of tasks are noticed, and nothing else is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svc.cli.task_files import LOOK_SECONDS, TaskFiles, mistake_in


class Watched:
    """A folder with tasks, looked at on a clock of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.write("tasks.py", "VALUE = 1\n")
        self.write("helper.py", "VALUE = 1\n")
        self.write("package/__init__.py", "")
        self.write("package/deep/part.py", "VALUE = 1\n")
        self.write("spaces/inner.py", "VALUE = 1\n")
        self.files = TaskFiles(["tasks", "spaces.inner"], folder, lambda: self.now)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def look(self) -> list[str]:
        self.now += LOOK_SECONDS
        return [str(path.relative_to(self.folder)) for path in self.files.changed()]

    def settled(self) -> list[str]:
        """Return what two looks tell together, which is all that a change needs."""
        return self.look() + self.look()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize("name", ["tasks.py", "helper.py", "package/deep/part.py", "spaces/inner.py"])
def test_a_file_that_is_written_has_changed_once(watched: Watched, name: str):
    assert watched.settled() == []
    watched.write(name, "VALUE = 2\n")
    assert watched.settled() == [name]
    assert watched.settled() == []


def test_a_change_of_the_same_length_in_the_same_second_is_seen(watched: Watched):
    before = (watched.folder / "tasks.py").stat()
    watched.write("tasks.py", "VALUE = 2\n")
    os.utime(watched.folder / "tasks.py", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert watched.settled() == ["tasks.py"]


def test_an_atomic_save_is_one_change(watched: Watched):
    new = watched.write(".tasks.py.swp", "VALUE = 2\n")
    new.replace(watched.folder / "tasks.py")
    assert watched.settled() == ["tasks.py"]


def test_a_file_that_is_gone_for_a_moment_has_not_changed_before_it_is_back(watched: Watched):
    aside = watched.folder / "tasks.py~"
    (watched.folder / "tasks.py").rename(aside)
    assert watched.look() == []
    watched.write("tasks.py", "VALUE = 2\n")
    assert watched.look() == []
    assert watched.look() == ["tasks.py"]


def test_a_change_waits_for_the_end_of_the_changes(watched: Watched):
    for number in range(5):
        watched.write("tasks.py", f"VALUE = 1{number}\n")
        watched.write("helper.py", f"VALUE = 1{number}\n")
        assert watched.look() == []
    assert watched.look() == ["helper.py", "tasks.py"]


def test_a_save_without_a_change_is_none(watched: Watched):
    watched.write("tasks.py", "VALUE = 1\n")
    assert watched.settled() == []


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.py",
        ".#tasks.py",
        "tasks.py~",
        "4913",
        "notes.txt",
        "__pycache__/tasks.cpython-311.pyc",
        "package/__pycache__/part.py",
        ".venv/lib/module.py",
        ".git/hook.py",
        "package/.cache/part.py",
        "data/part.py",
    ],
)
def test_other_files_are_not_looked_at(watched: Watched, name: str):
    watched.write(name, "x")
    assert watched.settled() == []


@pytest.mark.parametrize("name", ["new.py", "package/new.py", "newer/__init__.py"])
def test_a_new_file_and_one_that_is_removed_are_changes(watched: Watched, name: str):
    path = watched.write(name, "VALUE = 1\n")
    assert watched.settled() == [name]
    path.unlink()
    assert watched.settled() == [name]


def test_it_looks_a_few_times_a_second_at_most(watched: Watched):
    watched.settled()
    watched.write("tasks.py", "VALUE = 2\n")
    assert watched.look() == []
    assert watched.files.changed() == [], "no time has passed"
    assert watched.look() == ["tasks.py"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"def f(:\n", "line 1: "),
        (b"x = 1\n  y = 2\n", "line 2: unexpected indent"),
        (b"x = '\x00'\n", "null bytes"),
        (b"x = '\xff'\n", "utf-8"),
        (b"(" * 5000, ""),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, source: bytes, said: str):
    (tmp_path / "right.py").write_text("x = 1\n")
    (tmp_path / "wrong.py").write_bytes(source)
    mistake = mistake_in([tmp_path / "right.py", tmp_path / "gone.py", tmp_path / "wrong.py"])
    assert mistake.startswith(str(tmp_path / "wrong.py"))
    assert said in mistake
    assert "\n" not in mistake
    assert mistake_in([tmp_path / "right.py"]) == ""
