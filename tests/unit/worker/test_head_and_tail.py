from __future__ import annotations

import pytest

from svc.worker.head_and_tail import HeadAndTail


def kept(*chunks: bytes, most: int = 8) -> HeadAndTail:
    output = HeadAndTail(most)
    for chunk in chunks:
        output.add(chunk)
    return output


@pytest.mark.parametrize("chunks", [(), (b"",), (b"abc",), (b"abcd", b"efgh"), (b"ab", b"cdef", b"gh")])
def test_an_output_within_the_bound_is_kept_whole(chunks):
    output = kept(*chunks)
    assert (output.value(), output.left_out) == (b"".join(chunks).decode(), 0)


def test_of_a_longer_one_the_beginning_and_the_end_are_kept():
    output = kept(b"abc", b"defghi", b"jklm")
    assert output.value() == "abcd\n… 5 bytes left out …\njklm"
    assert (output.count, output.left_out) == (13, 5)


def test_a_bound_of_nothing_keeps_nothing_and_counts():
    output = kept(b"abc", b"def", most=0)
    assert output.value() == "\n… 6 bytes left out …\n"
    assert output.count == 6


def test_bytes_that_are_no_text_come_as_they_are():
    assert kept(b"\xff\xfe").value() == b"\xff\xfe"
    assert kept(b"\xff\xfe").text() == "\\xff\\xfe"
    assert kept(b"\xff" * 20).value() == b"\xff" * 4 + "\n… 12 bytes left out …\n".encode() + b"\xff" * 4


def test_a_cut_within_a_character_makes_no_bytes_of_a_text():
    output = kept("aäöüßäöüß".encode())
    assert output.value() == "aä\n… 9 bytes left out …\nüß"


def test_memory_is_bounded_whatever_comes():
    output = kept(*[b"x" * 65536] * 100, most=1000)
    assert len(output.value()) < 1100
    assert output.count == 6553600
