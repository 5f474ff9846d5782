"""The pages name files, headings and tests that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.svc import ROOT

PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (
        ".",
        "docs",
        "docs/decisions",
        "docs/deploy",
        "docs/runbooks",
        "benchmarks/results",
        "examples",
        "tests/support",
    )
    for page in (ROOT / folder).glob("*.md")
)
#: Pages that are true of the day that they name, and are not rewritten (decision 1).
HISTORY = [page for page in PAGES if page.parts[:2] == ("docs", "decisions") or page.name == "CHANGELOG.md"]
PRESENT = [page for page in PAGES if page not in HISTORY]
_CODE_FILE = re.compile(r"`((?:service/svc|tests|tools|benchmarks|examples|deploy|docs)/[\w./-]+)`")


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the usual hosts of repositories make them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that the links of a page lead to, and their anchors, if any."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (ROOT / page.parent / path).resolve() if path else (ROOT / page), anchor


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(page: Path):
    for file, anchor in links(page):
        assert file.exists(), file
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), (file, anchor)


@pytest.mark.parametrize("page", PRESENT, ids=str)
def test_a_file_of_the_repository_that_a_page_names_exists(page: Path):
    for named in _CODE_FILE.findall(text_of(page)):
        assert (ROOT / named).exists() or list(ROOT.glob(named)), named


def test_the_index_of_the_pages_has_each_once():
    index = Path("docs/README.md")
    linked = [file.relative_to(ROOT) for file, _ in links(index) if file.suffix == ".md"]
    pages = [page for page in PRESENT if page.parts[0] == "docs" and "runbooks" not in page.parts]
    assert sorted([index, *(page for page in linked if page.parts[0] == "docs")]) == pages


def test_each_decision_has_a_number_of_its_own_which_its_title_repeats():
    decisions = [page for page in HISTORY if page.parts[:2] == ("docs", "decisions")]
    numbers = [int(page.name[:4]) for page in decisions]
    assert len(set(numbers)) == len(numbers)
    assert [int(text_of(page).split(".")[0].removeprefix("# ")) for page in decisions] == numbers


def test_the_tests_that_the_threat_table_names_exist():
    """It writes `test_file.py`: `…part of a name…`, and more names of the same file after commas."""
    text = text_of(Path("SECURITY.md"))
    named = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)`:((?:[^`;|]*`(?:…[\w…]+|test_[\w…]+)`)+)", text)
    assert len(named) > 15
    for file, names in named:
        found = [each.read_text(encoding="utf-8") for each in ROOT.glob(f"tests/**/{Path(file).name}")]
        functions = re.findall(r"^def (test_\w+)", "\n".join(found), re.MULTILINE)
        for name in re.findall(r"`(…[\w…]+|test_[\w…]+)`", names):
            pattern = ".*".join(map(re.escape, name.split("…")))
            assert any(re.fullmatch(pattern, function) for function in functions), (file, name)


def test_the_map_of_the_support_modules_has_each_once():
    folder = ROOT / "tests" / "support"
    listed = re.findall(r"^\| (.+?) \|", text_of(Path("tests/support/README.md")), re.MULTILINE)
    linked = [name for row in listed for name in re.findall(r"\]\((\w+\.py)\)", row)]
    assert sorted(linked) == sorted(each.name for each in folder.glob("*.py"))
