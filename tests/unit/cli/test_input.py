import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from svc.cli import input as input_module
from svc.cli.input import BadLine, JobLine, JobLines
from svc.client.specs import JobSpec, Options


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def read(content: bytes, pipe, base: Options | None = None):
    reading, writing = pipe
    os.write(writing, content)
    os.close(writing)
    found = JobLines(reading, base or Options())
    return [job for job in found if job is not None], list(found.numbers)


def test_what_a_line_leaves_out_comes_from_the_base(pipe):
    jobs, _ = read(b'{"task": "t:f", "retries": 0}\n', pipe, Options(queue="q", retries=5))
    assert jobs == [JobSpec("t:f", [], {}, Options(queue="q", retries=0))]


@pytest.mark.parametrize("name", JobLine.__struct_fields__)
def test_the_docs_have_every_field_of_a_line(name):
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"`{name}`" in page.partition("\n## Jobs as NDJSON\n")[2].partition("\n## ")[0]


def test_blank_lines_are_counted_and_passed_over(pipe):
    jobs, numbers = read(b'\n{"task": "a"}\n  \n\n{"task": "b"}', pipe)
    assert ([job.task for job in jobs], numbers) == (["a", "b"], [2, 5])


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"task": 3}',
        b'{"task": "t", "args": {}}',
        b'{"task": "t", "retry": 1}',
        b"\xff\xfe",
    ],
)
def test_a_line_that_is_no_job_keeps_its_place_as_an_error(line, pipe):
    jobs, numbers = read(line + b'\n{"task": "t"}\n', pipe)
    assert isinstance(jobs[0], BadLine)
    assert isinstance(jobs[1], JobSpec)
    assert numbers == [1, 2]


def test_a_pause_of_the_input_is_told(pipe):
    """So a producer that writes now and then sees each job accepted without closing its pipe."""
    reading, writing = pipe
    jobs: Any = iter(JobLines(reading, Options()))
    os.write(writing, b'{"task": "a"}\n')
    assert [job and job.task for job in islice(jobs, 2)] == ["a", None]
    os.write(writing, b'{"task": "b"}\n')
    os.close(writing)
    assert [job and job.task for job in jobs] == ["b"]


def test_a_line_without_end_is_refused_and_not_kept(pipe, monkeypatch):
    monkeypatch.setattr(input_module, "MESSAGE_BYTES_MAX", 1000)
    monkeypatch.setattr(input_module, "CHUNK", 100)
    jobs, numbers = read(b'{"task": "' + b"x" * 5000 + b'"}\n{"task": "b"}\n', pipe)
    assert isinstance(jobs[0], BadLine)
    assert "longer than 1000 bytes" in jobs[0].message
    assert (jobs[1].task, numbers) == ("b", [1, 2])


def test_a_line_may_span_many_reads(pipe, monkeypatch):
    monkeypatch.setattr(input_module, "CHUNK", 3)
    jobs, _ = read(b'{"task": "a"}\n{"task": "b"}\n', pipe)
    assert [job.task for job in jobs] == ["a", "b"]
