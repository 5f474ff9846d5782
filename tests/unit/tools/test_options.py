"""The tables of options in docs/cli.md are written from the commands."""

from __future__ import annotations

from tools.options import PAGE, commands, table, written

WHOLE = PAGE.read_text(encoding="utf-8")


def test_a_table_is_brought_up_to_date():
    assert written(WHOLE.replace("| `--lease SECONDS` |", "| `--lase SECONDS` |")) == WHOLE


def test_a_command_without_a_section_gets_one_behind_the_command_before_it():
    before, title, rest = WHOLE.partition("\n## `svc resume`\n")
    page = written(before + "\n## " + rest.partition("\n## ")[2])
    assert page.index("\n## `svc drain`") < page.index("\n## `svc resume`") < page.index("\n## `svc metrics`")
    section = page.partition(title)[2].partition("\n## ")[0]
    assert "End a drain: consumers get jobs again." in section
    assert "```\nsvc resume\n```" in section
    assert table(dict(commands())["svc resume"]) in section
