"""The count of words that make prose slow to read."""

from __future__ import annotations

import pytest

from tools.words import main, per_thousand, prose, words

SOURCE = '''"""What is here."""

# Where it goes: what, and what's more.
TEXT = "what is in a string is not counted"  # noqa: what


class Thing:
    """A thing,

    where one is.
    """

    def act(self):
        """Say what."""
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    return tmp_path


def test_docstrings_and_comments_are_counted_and_nothing_else(folder):
    counted = words(prose(folder / "module.py"))
    assert (counted["what"], counted["where"], counted["string"]) == (3, 2, 0)


def test_a_line_is_found_at_its_place(folder):
    found = [
        line.place.rpartition(":")[2] for line in prose(folder / "module.py") if "where" in line.text.lower()
    ]
    assert found == ["10", "3"]


def test_the_rate_is_for_a_thousand_words_and_zero_without_any(folder):
    counted = words(prose(folder / "module.py"))
    assert per_thousand(counted, "what") == 1000 * 3 / counted.total()
    assert per_thousand(words([]), "what") == 0


def test_the_table_has_a_row_for_each_folder_and_a_list_names_the_lines(folder, capsys):
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: of 1,000 words")
    assert main([str(folder), "--list", "where"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_path_may_be_a_single_file(folder, capsys):
    file = folder / "module.py"
    assert main([str(file)]) == 0
    of_file = capsys.readouterr().out.removeprefix(str(file))
    assert main([str(folder)]) == 0
    assert of_file == capsys.readouterr().out.removeprefix(str(folder))
    assert "what 0.0" not in of_file


def test_a_path_that_is_not_there_is_an_error_and_not_a_zero(tmp_path):
    with pytest.raises(FileNotFoundError):
        main([str(tmp_path / "nowhere")])


def test_a_page_counts_without_its_code_blocks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("What is here?\n\n```\nwhat is code\n```\n\nAnd what else?\n")
    counted = words(prose(page))
    assert (counted["what"], counted["code"]) == (2, 0)
