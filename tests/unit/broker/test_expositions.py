"""The text of the metrics is made a slice at a time, once in a second for all who ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svc.broker import expositions as under_test
from svc.broker.expositions import COPIES_MAX, SHARED_SECONDS, SLICE_SECONDS, Expositions
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.parked import Waiting
from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member


class Maker:
    """Takes a second fraction for each part, told by a clock that only this moves."""

    def __init__(self, parts: int, seconds: float) -> None:
        self.now = 0.0
        self.parts = parts
        self.seconds = seconds
        self.begun = 0
        self.answers: list[tuple[Member, r.Reply]] = []
        self.expositions = Expositions(self._collect, self._totals, self._conclude, clock=lambda: self.now)

    def ask(self, member: Member | None = None) -> None:
        waiting = Waiting(Request([c.Exposition()], member or Member(), lambda replies: None), 0.0, 0)
        answer = self.expositions.answer(waiting.request.member)
        if answer is None:
            self.expositions.waiting.append(waiting)
        else:
            self._conclude(waiting, answer)

    def steps(self) -> list[float]:
        """Go on until nobody waits; return how long each step took."""
        taken = []
        while self.expositions.waiting:
            began = self.now
            self.expositions.step()
            taken.append(self.now - began)
        return taken

    def _totals(self) -> Iterator[r.Totals | None]:
        self.begun += 1
        yield r.Totals([], workers=self.begun)

    def _collect(self, totals: r.Totals) -> Iterator[str]:
        for _ in range(self.parts):
            self.now += self.seconds
            yield f"{totals.workers} "

    def _conclude(self, waiting: Waiting, reply: r.Reply) -> None:
        self.answers.append((waiting.request.member, reply))


@pytest.mark.parametrize("parts", [1, 10, 1_000])
def test_no_step_takes_longer_than_a_slice_and_one_part(parts: int):
    maker = Maker(parts, SLICE_SECONDS / 4)
    maker.ask()
    assert max(maker.steps()) <= SLICE_SECONDS + maker.seconds
    assert [reply for _, reply in maker.answers] == [r.Text("1 " * parts)]


def test_all_who_ask_meanwhile_and_within_a_second_share_one_text():
    maker = Maker(10, SLICE_SECONDS)
    maker.ask()
    maker.expositions.step()
    for _ in range(16):
        maker.ask()
    maker.steps()
    assert maker.begun == 1
    assert len(maker.answers) == 17
    maker.ask()
    assert maker.answers[-1][1] == r.Text("1 " * 10)
    maker.now += SHARED_SECONDS
    maker.ask()
    assert len(maker.answers) == 18
    maker.steps()
    assert maker.answers[-1][1] == r.Text("2 " * 10)


def test_a_connection_is_given_a_few_copies_of_a_text_only():
    maker, greedy = Maker(1, 0.0), Member()
    for _ in range(COPIES_MAX - 1):
        maker.ask(greedy)
    maker.steps()
    for _ in range(3):
        maker.ask(greedy)
    maker.ask()
    texts = [r.Text("1 ")] * COPIES_MAX
    assert [reply for _, reply in maker.answers] == [
        *texts,
        under_test._TOO_MANY,
        under_test._TOO_MANY,
        texts[0],
    ]

    maker.now += SHARED_SECONDS
    maker.ask(greedy)
    maker.steps()
    assert maker.answers[-1] == (greedy, r.Text("2 "))


def test_who_has_gone_is_not_answered_and_the_next_one_gets_a_new_text():
    maker, gone = Maker(3, SLICE_SECONDS), Member()
    maker.ask(gone)
    maker.expositions.step()
    maker.expositions.forget(gone)
    assert not maker.expositions.waiting
    maker.ask()
    maker.steps()
    assert [reply for _, reply in maker.answers] == [r.Text("2 2 2 ")]


def test_metrics_that_cannot_be_made_are_refused_and_asked_for_again():
    answers: list[r.Reply] = []
    broken = [True]

    def collect(totals: r.Totals) -> Iterator[str]:
        yield "a"
        if broken.pop() if broken else False:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    expositions = Expositions(
        collect, lambda: iter([None, r.Totals([])]), lambda waiting, reply: answers.append(reply)
    )
    for _ in range(2):
        assert expositions.answer(Member()) is None
        expositions.waiting.append(Waiting(Request([c.Exposition()], Member(), lambda replies: None), 0.0, 0))
        while expositions.waiting:
            expositions.step()
    assert isinstance(answers[0], r.Refused)
    assert answers[1] == r.Text("a")


def test_a_name_that_is_no_text_does_not_keep_the_rest_from_being_told():
    host = QueueHost(MemoryJournal(), exposition=lambda totals: ["before ", "\ud800", " after"])
    assert answers_of(host, [c.Exposition()]) == [r.Text("before ? after")]


def answers_of(host: QueueHost, commands: list[c.Command]) -> list[r.Reply]:
    found: list[list[r.Reply]] = []
    host.call(commands, Member(), found.append)
    while not found:
        assert host.seconds_to_next() == 0
        host.turn()
    return found[0]


def test_a_host_answers_a_request_for_metrics_together_with_what_came_before_it():
    host = QueueHost(MemoryJournal(), exposition=lambda totals: [str(len(totals.queues)), "\n"])
    assert answers_of(host, [c.Stats(), c.Exposition()])[1] == r.Text("0\n")
    assert answers_of(host, [c.Exposition()]) == [r.Text("0\n")]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_request_holds_the_text_once_however_often_it_asks_for_it(fresh: bool):
    host = QueueHost(MemoryJournal(), exposition=lambda totals: ["text"])
    if fresh:
        answers_of(host, [c.Exposition()])
    replies = answers_of(host, [*[c.Exposition()] * 100, c.Join("default")])
    assert all(isinstance(reply, r.Refused) for reply in replies[:-1])
    assert replies[-1] == r.Done()


def test_the_connection_of_who_waits_for_metrics_may_end():
    host, member = QueueHost(MemoryJournal()), Member()
    host.call([c.Exposition()], member, lambda replies: pytest.fail("nobody is there"))
    host.disconnected(member)
    host.turn()
