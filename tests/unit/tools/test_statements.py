"""The count of statements and the list of long files."""

from __future__ import annotations

import pytest

from tools.statements import MOST_LINES, main, statements

SOURCE = '''"""A module."""

import os  # a comment is no statement


def act():
    if os.name:
        return 1
    return (
        2
    )
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "module.py").write_text(SOURCE)
    (tmp_path / "long.py").write_text("\n" * (MOST_LINES + 1))
    (tmp_path / "just.py").write_text("\n" * MOST_LINES)
    return tmp_path


def test_a_statement_counts_once_whatever_its_lines(folder):
    # the docstring, the import, the function, the condition and the two returns
    assert statements(folder / "part" / "module.py") == 6


def test_the_table_has_each_package_the_sum_and_the_long_files(folder, capsys):
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 0 statements",
        f"{folder / 'part'}: 6 statements",
        f"{folder} in all: 6 statements",
        f"{folder / 'long.py'}: 401 lines (at most 400)",
    ]


def test_a_folder_that_is_not_there_is_an_error_and_not_a_zero(tmp_path):
    with pytest.raises(FileNotFoundError):
        main([str(tmp_path / "nowhere")])
