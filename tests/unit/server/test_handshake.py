"""The handshake against the stdlib's own two halves, in this process and over real pipes."""

from __future__ import annotations

import hmac
import threading
from multiprocessing import AuthenticationError
from multiprocessing import connection as stdlib

import pytest

from svc import wire_handshake as handshake

KEY = b"the key"


def answer_of(function, key=KEY):
    """Run the stdlib's *function* at the other end of a pipe; return our end and a way to join it."""
    ours, theirs = stdlib.Pipe()
    failures: list[Exception] = []

    def run() -> None:
        try:
            function(theirs, key)
        except (AuthenticationError, AssertionError, ValueError) as error:
            failures.append(error)

    def end() -> list[Exception]:
        thread.join(30)
        return failures

    thread = threading.Thread(target=run)
    thread.start()
    return ours, end


def test_a_stdlib_client_accepts_our_challenge_and_we_its_answer():
    ours, end = answer_of(stdlib.answer_challenge)
    challenge = handshake.make_challenge()
    ours.send_bytes(handshake.CHALLENGE + challenge)

    assert handshake.is_right(KEY, challenge, ours.recv_bytes())
    ours.send_bytes(handshake.WELCOME)
    assert end() == []


def test_we_answer_a_stdlib_challenge():
    ours, end = answer_of(stdlib.deliver_challenge)
    response = handshake.answer(KEY, ours.recv_bytes())

    assert response is not None
    ours.send_bytes(response)
    assert ours.recv_bytes() == handshake.WELCOME
    assert end() == []


@pytest.mark.parametrize(
    "challenge",
    [b"{sha256}" + b"c" * 40, b"{md5}" + b"c" * 20, b"c" * 20],
    ids=["sha256", "md5", "bare md5 of 3.11 and older"],
)
def test_both_halves_of_ours_agree_on_every_digest(challenge):
    response = handshake.answer(KEY, handshake.CHALLENGE + challenge)

    assert response is not None
    assert handshake.is_right(KEY, challenge, response)
    assert not handshake.is_right(b"another key", challenge, response)


def test_an_old_client_that_answers_with_bare_md5_is_accepted():
    challenge = handshake.make_challenge()

    assert handshake.is_right(KEY, challenge, hmac.new(KEY, challenge, "md5").digest())


@pytest.mark.parametrize(
    "response", [b"", b"x" * 16, b"{sha256}", b"{md5}" + b"x" * 16, b"{sha1}" + b"x" * 20]
)
def test_a_wrong_answer_is_wrong(response):
    assert not handshake.is_right(KEY, handshake.make_challenge(), response)


@pytest.mark.parametrize(
    "message",
    [b"", b"hello", handshake.WELCOME, handshake.CHALLENGE, handshake.CHALLENGE + b"{sha1}" + b"c" * 20],
)
def test_what_is_no_challenge_is_not_answered(message):
    """An answer to a challenge of any other form could be turned against us."""
    assert handshake.answer(KEY, message) is None


def test_challenges_are_fresh():
    assert handshake.make_challenge() != handshake.make_challenge()


def test_our_own_response_is_never_a_right_answer_to_another_challenge():
    first, second = handshake.make_challenge(), handshake.make_challenge()
    response = handshake.answer(KEY, handshake.CHALLENGE + first)

    assert response is not None
    assert not handshake.is_right(KEY, second, response)
