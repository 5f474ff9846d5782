"""Files as arguments, and results as files."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from svc.cli.files import save_pieces

BYTES = bytes(range(256)) * 3


@pytest.fixture
def ended(svc, consumer):
    """Return a function that submits a job whose result is a value, and returns its id."""

    def end(value):
        name = svc("submit", "t:f").out.strip()
        consumer.succeed(lambda: value)
        return name

    return end


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (BYTES, BYTES),
        (b"", b""),
        ("ä\n", "ä\n".encode()),
        ({"a": [1, None]}, b'{"a":[1,null]}\n'),
        (None, b"null\n"),
    ],
)
def test_a_result_is_written_as_it_is(svc, ended, tmp_path, value, content):
    assert svc("results", ended(value), "--output", "out") == type(svc("results"))(0, "", "")
    assert (tmp_path / "out").read_bytes() == content


def test_a_file_that_was_there_is_replaced_and_keeps_its_permissions(svc, ended, tmp_path):
    (tmp_path / "out").write_bytes(b"a longer content than the new one")
    (tmp_path / "out").chmod(0o640)

    assert svc("results", ended(b"new"), "--output", "out").code == 0
    assert (tmp_path / "out").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_job_that_failed_leaves_the_file_alone(svc, consumer, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    name = svc("submit", "t:f").out.strip()
    consumer.fail("kaput")

    shown = svc("results", name, "--output", "out")

    assert shown.code == 8
    assert "kaput" in shown.err
    assert (tmp_path / "out").read_bytes() == b"old"
    assert not list(tmp_path.glob(".out*"))


def test_a_pipe_gets_the_bytes(svc, ended, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    name, read = ended(BYTES), []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert svc("results", name, "--output", "pipe").code == 0
    reader.join(30)
    assert read == [BYTES]


def test_a_file_that_cannot_be_written_is_told_before_any_waiting(svc, tmp_path):
    name = svc("submit", "t:f").out.strip()
    for path, told in ((".", "is a directory"), ("none/out", "there is no directory none")):
        shown = svc("results", name, "--output", path)
        assert (shown.code, told in shown.err) == (2, True), shown.err


@pytest.mark.parametrize("more", [[], ["o-1", "o-2"], ["o-1", "--json"], ["--follow"], ["--from", "ids"]])
def test_output_is_for_one_job(svc, more):
    shown = svc("results", *more, "--output", "out")
    assert (shown.code, "--output is for the result of one job" in shown.err) == (2, True)


def test_files_become_keyword_arguments(svc, consumer, tmp_path):
    (tmp_path / "photo").write_bytes(BYTES)
    (tmp_path / "empty").write_bytes(b"")
    files = ["--input", "image=@photo", "--input", "mask=@empty"]
    assert svc("submit", "t:f", "1", "--kwargs", '{"size": 3}', *files).code == 0

    seen = []
    consumer.succeed(lambda *args, **kwargs: seen.append((args, kwargs)))

    assert seen == [((1,), {"size": 3, "image": BYTES, "mask": b""})]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--input", "image"], "--input is NAME=@FILE"),
        (["--input", "image=photo"], "--input is NAME=@FILE"),
        (["--input", "a b=@photo"], "--input is NAME=@FILE"),
        (["--input", "image=@"], "--input is NAME=@FILE"),
        (["--input", "image=@none"], "none cannot be read: No such file"),
        (["--input", "image=@."], ". is a directory; name a file"),
        (["--input", "image=@photo", "--input", "image=@photo"], "the argument image is given twice"),
        (["--input", "image=@photo", "--kwargs", '{"image": 1}'], "the argument image is given twice"),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_sent(svc, tmp_path, flags, told):
    (tmp_path / "photo").write_bytes(b"x")
    shown = svc("submit", "t:f", *flags)
    assert (shown.code, told in shown.err) == (2, True), shown.err
    assert svc("jobs", "list", "--json").json == []


def test_an_input_belongs_to_one_job(svc):
    assert svc("submit", "--from", "jobs", "--input", "a=@b").code == 2


def test_a_file_that_is_too_large_is_named(svc, tmp_path):
    with Path("huge").open("wb") as file:
        file.truncate((1 << 30) + 1)
    shown = svc("submit", "t:f", "--input", "image=@huge")
    assert (shown.code, "argument image takes 1073741825 bytes" in shown.err) == (2, True), shown.err


def test_no_part_of_a_result_is_left_if_the_command_is_told_to_end(tmp_path):
    def pieces():
        yield b"one"
        os.kill(os.getpid(), signal.SIGTERM)
        yield b"two"

    def not_caught(*_args: object) -> None:
        pytest.fail("the signal would have ended the process")

    before = signal.signal(signal.SIGTERM, not_caught)
    try:
        with pytest.raises(KeyboardInterrupt):
            save_pieces(str(tmp_path / "out"), pieces())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []
