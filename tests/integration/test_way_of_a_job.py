"""One warm job enters the files that docs/architecture.md names, and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.support.architecture import PAGE, lines_of, objections, read_way
from tests.support.svc import ROOT, environment

#: The most files to read for the way of a job, and the most lines of the linked functions in them.
WAY_FILES, WAY_LINES = 8, 1200


@pytest.fixture(scope="module")
def jobs() -> list[dict[str, list[str]]]:
    """The entered functions of several warm jobs, by their files."""
    command = [sys.executable, "-m", "tests.support.job_trace"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    found: list[dict[str, list[str]]] = json.loads(done.stdout)
    return found


def test_a_warm_job_enters_the_files_that_the_page_names_and_no_others(jobs):
    assert objections(read_way(), jobs) == []


def test_the_number_of_entered_files_is_within_the_limit_of_the_page(jobs):
    way = read_way()
    counts = [len(job.keys() - {*way.clock}) for job in jobs]
    assert max(counts) <= way.most, counts


def test_a_file_that_the_page_does_not_name_is_noticed(jobs, tmp_path):
    way = read_way()
    page = (ROOT / "docs" / "architecture.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| [`{way.support[0]}`]")]
    (tmp_path / "page.md").write_text(page.replace(f"{line}\n", ""))
    assert objections(read_way(tmp_path / "page.md"), jobs) == [
        f"{way.support[0]} is entered, and the page does not name it"
    ]


def test_a_limit_that_is_passed_is_noticed(jobs):
    way = read_way()
    assert all("files, and the page allows" in each for each in objections(replace(way, most=5), jobs))
    assert len(objections(replace(way, most=5), jobs)) == len(jobs)


def test_a_file_and_a_step_that_no_job_enters_are_noticed(jobs):
    way = read_way()
    stale = replace(way, support=[*way.support, "gone.py"], steps=[*way.steps, (way.files[0], "no_function")])
    assert objections(stale, jobs) == [
        "gone.py is support, and no job enters it",
        f"no_function of {way.files[0]} is a step, and no job enters it",
    ]


# --- the page alone -------------------------------------------------------------------------------------


def test_the_way_is_read_in_eight_files_and_1200_lines():
    way = read_way()
    read = {(file, number) for file, name in way.steps for number in lines_of(file, name)}
    assert len(way.files) <= WAY_FILES
    assert len(read) <= WAY_LINES
    (said,) = re.findall(r"Read the linked functions, some (\d+) lines in (\d+) files", PAGE.read_text())
    assert int(said[1]) == len(way.files)
    assert abs(int(said[0]) - len(read)) <= 50, "the page tells another number of lines"


def test_a_function_that_does_not_exist_is_noticed():
    with pytest.raises(KeyError, match=r"has no Client\.nothing"):
        lines_of("client/client.py", "Client.nothing")
