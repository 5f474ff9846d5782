"""The version of the code changes with the files that make up the tasks, and with no others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.worker import code_version
from svc.worker.code_version import VERSION_DIGITS, note
from svc.worker.code_version import code_version as version_of

TASKS = ("vt_tasks",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a task module, a helper beside it, a package, and a library in an environment."""
    library = tmp_path / ".venv" / "lib" / "site-packages"
    (tmp_path / "vt_package").mkdir()
    library.mkdir(parents=True)
    (tmp_path / "vt_tasks.py").write_text("import vt_helper, vt_package.part, vt_library, json\n")
    (tmp_path / "vt_helper.py").write_text("VALUE = 1\n")
    (tmp_path / "vt_package" / "__init__.py").write_text("")
    (tmp_path / "vt_package" / "part.py").write_text("VALUE = 1\n")
    (tmp_path / "vt_unused.py").write_text("VALUE = 1\n")
    (library / "vt_library.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(library))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_version, "_noted", {})
    importlib.import_module("vt_tasks")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("vt_")]:
        del sys.modules[name]


def test_a_version_is_short_and_stays_the_same(folder: Path):
    version = version_of(TASKS)
    assert len(version) == VERSION_DIGITS
    assert int(version, 16) >= 0
    assert version_of(TASKS) == version


@pytest.mark.parametrize("changed", ["vt_tasks.py", "vt_helper.py", "vt_package/part.py"])
def test_it_changes_with_each_file_of_the_tasks(folder: Path, changed: str):
    before = version_of(TASKS)
    with (folder / changed).open("a") as file:
        file.write("# changed\n")
    assert version_of(TASKS) != before


@pytest.mark.parametrize("changed", ["vt_unused.py", ".venv/lib/site-packages/vt_library.py"])
def test_other_files_do_not_change_it(folder: Path, changed: str):
    before = version_of(TASKS)
    with (folder / changed).open("a") as file:
        file.write("# changed\n")
    assert version_of(TASKS) == before


def test_a_package_that_is_installed_counts_alone(folder: Path):
    before = version_of(["vt_library"])
    with (folder / "vt_helper.py").open("a") as file:
        file.write("# changed\n")
    assert version_of(["vt_library"]) == before
    with (folder / ".venv/lib/site-packages/vt_library.py").open("a") as file:
        file.write("# changed\n")
    assert version_of(["vt_library"]) != before


def test_a_module_in_a_package_counts_with_all_of_the_package_that_is_loaded(folder: Path):
    before = version_of(["vt_package.part"])
    with (folder / "vt_package" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    assert version_of(["vt_package.part"]) != before


def test_a_preloaded_module_counts_as_it_was_when_it_was_loaded(folder: Path):
    before = version_of(TASKS)
    note()
    for name in ("vt_helper.py", "vt_tasks.py"):
        with (folder / name).open("a") as file:
            file.write("# changed\n")
    assert version_of(TASKS) == before


def test_a_file_that_cannot_be_read_is_no_error(folder: Path):
    (folder / "vt_helper.py").unlink()
    assert len(version_of(TASKS)) == VERSION_DIGITS


def test_without_task_modules_there_is_no_version():
    assert version_of(()) == ""
    assert version_of(("no_such_module",)) == ""


def test_of_svc_itself_the_named_modules_count_alone():
    importlib.import_module("svc.cli.demo_tasks")
    assert [*code_version._counted(["svc.cli.demo_tasks"])] == ["svc.cli.demo_tasks"]
