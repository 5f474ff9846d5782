from __future__ import annotations

import itertools
import pickle

import pytest

from svc.domain.job import Terms
from svc.envelope import OVERHEAD_BYTES, PickleKeys
from svc.errors import AuthenticationFailed, ConfigurationError, UntrustedPickle
from svc.key_files import read_pickle_keys

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = PickleKeys((OLD,))
TERMS = Terms("m:f", "q", codec="pickle")
CONTENT = b"not really a pickle"


def test_an_envelope_gives_back_what_was_put_in():
    envelope = KEYS.of("o-7").seal_arguments(TERMS, CONTENT)
    assert KEYS.of("o-7").open_arguments(TERMS, envelope) == CONTENT
    assert len(envelope) == len(CONTENT) + OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("job", "terms"),
    [
        ("o-8", TERMS),
        ("p-7", TERMS),
        ("o-7", Terms("m:g", "q", codec="pickle")),
        ("o-7", Terms("m:f", "other", codec="pickle")),
    ],
    ids=["number", "origin", "task", "queue"],
)
def test_arguments_are_for_one_job_task_and_queue(job, terms):
    envelope = KEYS.of("o-7").seal_arguments(TERMS, CONTENT)
    with pytest.raises(UntrustedPickle, match=job):
        KEYS.of(job).open_arguments(terms, envelope)


def test_arguments_of_a_job_with_a_key_may_turn_out_to_be_an_earlier_job_of_the_same_task():
    envelope = KEYS.of("o-7").seal_arguments(TERMS, CONTENT, keyed=True)
    assert envelope == KEYS.of("o-8").seal_arguments(TERMS, CONTENT, keyed=True)
    assert KEYS.of("o-8").open_arguments(TERMS, envelope) == CONTENT
    with pytest.raises(UntrustedPickle):
        KEYS.of("o-8").open_arguments(Terms("m:g", "q"), envelope)


def test_an_envelope_for_one_job_does_not_pass_for_one_with_a_key():
    envelope = KEYS.of("o-7").seal_arguments(TERMS, CONTENT)
    with pytest.raises(UntrustedPickle):
        KEYS.of("o-7").open_arguments(TERMS, b"K" + envelope[1:])


@pytest.mark.parametrize("place", [0, 1, 32, 33, -1])
def test_one_changed_bit_is_enough(place):
    envelope = bytearray(KEYS.of("o-7").seal_arguments(TERMS, CONTENT))
    envelope[place] ^= 1
    with pytest.raises(UntrustedPickle):
        KEYS.of("o-7").open_arguments(TERMS, bytes(envelope))


@pytest.mark.parametrize("content", [b"", b"J", b"J" * 33, b"J" * 32, pickle.dumps(((1,), {})), b"K" * 99])
def test_what_is_no_envelope_is_not_opened(content):
    with pytest.raises(UntrustedPickle):
        KEYS.of("o-7").open_arguments(TERMS, content)
    with pytest.raises(UntrustedPickle):
        KEYS.of("o-7").open_answer("result", content)


def test_arguments_results_and_exceptions_do_not_pass_for_each_other():
    envelopes = KEYS.of("o-7")
    made = {
        "arguments": envelopes.seal_arguments(TERMS, CONTENT),
        "result": envelopes.seal_answer("result", CONTENT),
        "exception": envelopes.seal_answer("exception", CONTENT),
    }
    opening = {
        "arguments": lambda envelope: envelopes.open_arguments(TERMS, envelope),
        "result": lambda envelope: envelopes.open_answer("result", envelope),
        "exception": lambda envelope: envelopes.open_answer("exception", envelope),
    }
    for kind, other in itertools.permutations(made, 2):
        with pytest.raises(UntrustedPickle):
            opening[kind](made[other])


def test_two_keys_verify_while_one_replaces_the_other_and_the_first_signs():
    old, both, new = KEYS, PickleKeys((NEW, OLD)), PickleKeys((NEW,))
    assert both.of("o-7").open_arguments(TERMS, old.of("o-7").seal_arguments(TERMS, CONTENT)) == CONTENT
    envelope = both.of("o-7").seal_arguments(TERMS, CONTENT)
    assert new.of("o-7").open_arguments(TERMS, envelope) == CONTENT
    with pytest.raises(UntrustedPickle, match="another key"):
        old.of("o-7").open_arguments(TERMS, envelope)


def test_keys_cross_to_a_consumer_and_are_shown_nowhere():
    assert pickle.loads(pickle.dumps(KEYS)) == KEYS
    assert "ooo" not in repr(KEYS) + repr(KEYS.of("o-7"))


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("SVC_PICKLE_KEY_FILE", raising=False)
    path = tmp_path / "pickle_key"
    path.touch(0o600)
    return path


def test_a_file_holds_one_key_or_the_one_that_signs_and_another(file):
    assert read_pickle_keys() is None
    file.write_bytes(OLD + b"\n")
    assert read_pickle_keys(file) == KEYS
    file.write_bytes(NEW + b"\n" + OLD)
    assert read_pickle_keys(file) == PickleKeys((NEW, OLD))


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"\n".join([OLD, NEW, b"x" * 32])])
def test_a_file_with_too_little_or_too_much_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_pickle_keys(file)


def test_a_file_that_everybody_can_read_or_nobody_made_is_refused(file):
    with pytest.raises(ConfigurationError, match="svc auth generate --pickle"):
        read_pickle_keys(file.with_name("missing"))
    file.write_bytes(OLD)
    file.chmod(0o604)
    with pytest.raises(AuthenticationFailed, match="chmod"):
        read_pickle_keys(file)
