"""The targets of `make fuzz` with their initial inputs, so that they stay in order; needs no fuzzer."""

from __future__ import annotations

import logging
import math
import pickle
import subprocess
import sys

import pytest
import structlog

from tests.fuzz import run, targets
from tests.fuzz.corpus import dictionary, every
from tests.fuzz.oracle import Finding, Watch
from tests.fuzz.targets import TARGETS
from tests.support.hostile_pickles import Call


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch(cpu_seconds=math.inf)  # the suite asserts no times


@pytest.fixture(autouse=True)
def quiet():
    """Drop a manager's log lines about unknown peers."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_what_fuzzing_starts_from(target, watch):
    for name, data in every(target).items():
        try:
            with watch.one_input():
                TARGETS[target](data)
        except BaseException as error:
            error.add_note(name)
            raise


def test_an_interpreter_that_svc_is_not_installed_for_finds_it():
    find = "from importlib.util import find_spec as find"
    looks = f"{find}; raise SystemExit(not (find('svc') and find('tests')))"
    bare = [sys.executable, "-S", "-c", looks]
    assert subprocess.run(bare, env=run.environment(), check=False).returncode == 0
    assert subprocess.run(bare, env={}, cwd="/", check=False).returncode == 1


def test_each_target_starts_from_hundreds_of_inputs():
    assert min(len(every(target)) for target in TARGETS) >= 400
    assert len(dictionary()) > 50


def test_a_reader_that_names_a_global_is_found(watch, monkeypatch):
    """A test of the oracle: without the scan, the same target reports the effects of pickle."""
    monkeypatch.setattr(targets, "loads_plain", lambda data, **limits: pickle.loads(data))
    with pytest.raises(Finding, match="had an effect"), watch.one_input():
        pickle.loads(pickle.dumps(Call(len, "x")))
    with pytest.raises(Finding, match="asks for"):
        targets.decoder(pickle.dumps(Call(len, "x")))


def test_a_refusal_for_want_of_memory_is_found(monkeypatch):
    from svc.errors import BadRequest

    def read(data: bytes, **limits: int) -> object:
        raise BadRequest("the request cannot be unpickled: MemoryError: ")

    monkeypatch.setattr(targets, "loads_plain", read)
    with pytest.raises(Finding, match="by accident"):
        targets.decoder(b"N.")
