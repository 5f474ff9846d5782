"""Numbers on the command line: each has bounds, which are declared with its option and kept."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from svc.declarations import Number, parse_integer, parse_seconds, parse_size
from svc.errors import ConfigurationError
from tests.unit.cli.conftest import Started
from tests.unit.cli.test_program import COMMANDS

#: The word for a number in the help.
NUMBER = re.compile(r"\b(SECONDS|BYTES|N)\b")
KINDS = ("integer", "float", "integer range", "float range")


def declared(option: Any) -> tuple[bool, Any]:
    """Return whether the type of *option* is a number, and the object that parses it."""
    if hasattr(option, "type_descriptor"):  # typer from 0.29 on
        descriptor = option.type_descriptor
        return descriptor.annotation in (int, float), descriptor.parameter_info.parser
    return option.type.name in KINDS, getattr(option.type, "func", None)


def bounded(option: Any) -> Number | None:
    """Return the reader of an option that is a number, or None."""
    read = getattr(declared(option)[1], "read", None)
    return read if isinstance(read, Number) else None


def is_number(option: Any) -> bool:
    named = bool(option.metavar and NUMBER.search(option.metavar))
    return declared(option)[0] or bounded(option) is not None or named


NUMBERS = [
    (name, option) for name, command in COMMANDS.items() for option in command.params if is_number(option)
]
each_number = pytest.mark.parametrize(
    ("name", "option"), NUMBERS, ids=[f"{name} {option.opts[0]}" for name, option in NUMBERS]
)


def test_there_are_numbers_of_every_kind():
    assert {option.opts[0] for _, option in NUMBERS} >= {
        "--lease", "--limit", "--max-job-bytes", "--consumers", "--memory-limit", "--priority", "--timeout",
    }  # fmt: skip


@each_number
def test_every_number_has_bounds_and_its_default_lies_within(name, option):
    number = bounded(option)
    assert number is not None, "it may be as much or as little as one likes"
    assert math.isfinite(number.least)
    assert math.isfinite(number.most)
    assert number.least < number.most
    if option.default is not None:
        number(str(option.default))


@each_number
def test_what_is_out_of_bounds_is_refused_with_the_name_of_the_option(svc, started, name, option):
    number = bounded(option)
    assert number is not None
    low, high = number.least, number.most
    words = name.split()[1:]
    required = ["x-0"] if words[-1] in ("show", "cancel") else []
    odd = ["nan", "inf", "-1", "1e400", f"{int(high) + 1}", str(10**30)]
    if low > 0:
        odd.append("0")
    if low < 0:
        odd.append(f"{int(low) - 1}")
        odd.remove("-1")
    for value in odd:
        ended = svc(*words, *required, f"{option.opts[0]}={value}")
        assert (ended.code, ended.out) == (2, ""), value
        assert option.opts[0] in ended.err, ended.err
        assert value in ended.err
        assert len(ended.err.splitlines()) == 1
    assert started == Started([], [], [])


@pytest.mark.parametrize("value", ["0", "0s", "999ms", "100000d", "-5", "soon"])
def test_a_lease_of_no_time_is_refused(svc, started, value):
    ended = svc("manager", f"--lease={value}")
    assert ended.code == 2
    assert "--lease" in ended.err
    assert started.managers == []


def test_bounds_hold_for_variables_and_the_settings_file_too(svc, started, tmp_path, monkeypatch):
    (tmp_path / "svc.toml").write_text("[manager]\nlease = 0\n")
    assert svc("manager").code == 2
    (tmp_path / "svc.toml").unlink()
    monkeypatch.setenv("SVC_LEASE", "0")
    assert svc("manager").code == 2
    assert started.managers == []


@pytest.mark.parametrize(
    ("reads", "taken", "refused"),
    [
        (
            Number(parse_seconds, "1s", "1d"),
            {"1": 1.0, "1000ms": 1.0, "24h": 86400.0},
            ["0.999", "24.1h", "nan", ""],
        ),
        (
            Number(parse_size, "1KiB", "2MiB"),
            {"1024": 1024, "1MiB": 1 << 20},
            ["1023", "3MiB", "1.5MiB", "-1"],
        ),
        (
            Number(parse_size, "1", "1GiB", {"auto": "auto", "off": None}),
            {"AUTO": "auto", "off": None, "7": 7},
            ["on", "0"],
        ),
        (
            Number(parse_integer, "1", "10000", {"auto": None}),
            {"auto": None, "3": 3, "10000": 10000},
            ["0", "10001", "٣", "-1", "2.5", ""],
        ),
    ],
)
def test_a_value_is_a_number_within_the_bounds_or_a_word(reads, taken, refused):
    assert {text: reads(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(ConfigurationError):
            reads(text)


@pytest.mark.parametrize(
    "argv", [["f", "-1"], ["f", "3", "-17"], ["t:f", "-0.5", "2"], ["t:f", "-x"], ["-1", "f"]]
)
def test_an_argument_with_a_dash_is_told_about_the_double_dash(svc, argv):
    ended = svc("submit", *argv)
    assert (ended.code, ended.out) == (2, "")
    assert "put -- before arguments that begin with a dash" in ended.err


@pytest.mark.parametrize("option", ["--wait", "--retries=3", "--json", "--queue"])
def test_an_option_behind_the_double_dash_is_told(svc, consumer, option):
    ended = svc("submit", "t:f", "--", "-1", option)
    assert ended.code == 0
    assert f"{option} stands behind -- and is an argument of the task" in ended.err


def test_after_the_double_dash_a_number_may_be_negative(svc, consumer):
    svc("submit", "t:f", "--", "-1", "-2.5")
    consumer.succeed()
    assert svc("results").out.endswith("\t[-1,-2.5]\n")


@pytest.mark.parametrize("argv", [["submit", "t", "--retires", "3"], ["status", "-1"], ["resume", "-x"]])
def test_a_misspelt_option_is_not_told_about_it(svc, argv):
    assert "put --" not in svc(*argv).err
