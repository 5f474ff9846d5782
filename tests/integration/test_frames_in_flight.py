"""Several frames of jobs on their way at a time: order, cut connections, refusals in the middle, bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.client.frames import FRAME_JOBS, IN_FLIGHT_BYTES, IN_FLIGHT_FRAMES
from svc.client.specs import JobSpec, Options
from svc.client.submitter import Job
from svc.domain import commands as c
from svc.domain.job import job_id
from svc.domain.limits import Limits
from svc.errors import Draining, JobTooLarge, ManagerUnreachable, QueueFull, ServiceError
from svc.wire import PROTOCOL_VERSION
from svc.wire_tls import TlsFiles
from tests.support.certificates import files
from tests.support.manager import RunningManager, running_manager
from tests.support.proxy import Proxy
from tests.support.workers import until

SECONDS = 45.0
#: Waiting jobs of a queue, and bytes of a job, at most.
QUEUE_JOBS, JOB_BYTES = 30_000, 1_000_000
#: Bytes of a reply that the proxy lets pass before it cuts the connection.
PART = 7


@pytest.fixture
def manager() -> Iterator[RunningManager]:
    with running_manager(limits=Limits(max_queue_jobs=QUEUE_JOBS, max_job_bytes=JOB_BYTES)) as manager:
        yield manager


@pytest.fixture
def proxy(manager: RunningManager) -> Iterator[Proxy]:
    proxy = Proxy(manager.endpoint)
    yield proxy
    proxy.close()


class CountingBroker(ManagerBroker):
    """Counts the submits that it sends, repeated ones too."""

    submits = 0
    #: Called before each.
    before_submit: Callable[[], None] | None = None

    def _send(self, stream, commands, deadline, wait):
        count = sum(isinstance(command, c.Submit) for command in commands)
        self.submits += count
        if count and self.before_submit is not None:
            self.before_submit()
        return super()._send(stream, commands, deadline, wait)


class Client:
    """A connected client of the manager at *address*, and the connections that it makes."""

    def __init__(self, address: tuple[str, int], authkey: bytes, tls: TlsFiles | None = None) -> None:
        self.brokers: list[CountingBroker] = []

        def connect() -> CountingBroker:
            self.brokers.append(CountingBroker(address, authkey, tls=tls))
            return self.brokers[-1]

        self.connect = connect
        self.client = BrokerClient(connect)
        self.client.stats()

    def close(self) -> None:
        self.client.close()
        for broker in self.brokers:
            broker.close()

    def submits(self) -> int:
        return sum(broker.submits for broker in self.brokers)


@pytest.fixture
def near(manager: RunningManager) -> Iterator[Client]:
    """A client without a proxy."""
    near = Client(manager.endpoint, manager.authkey)
    yield near
    near.close()


@pytest.fixture
def far(manager: RunningManager, proxy: Proxy) -> Iterator[Client]:
    """A client behind the proxy."""
    host, _, port = proxy.address.rpartition(":")
    far = Client((host, int(port)), manager.authkey)
    yield far
    far.close()


def numbered(jobs: int, **options) -> list[JobSpec]:
    return [JobSpec("m:f", (number,), {}, Options(**options)) for number in range(jobs)]


def order_of(manager: RunningManager, tls: TlsFiles | None = None) -> list[str]:
    """Return the ids of all waiting jobs in the order in which consumers get them."""
    hello = c.Hello(PROTOCOL_VERSION, "consumer", "w-9", "w", tasks=["m:f"])
    with ManagerBroker(manager.endpoint, manager.authkey, hello=lambda: hello, tls=tls) as consumer:
        found: list[str] = []
        while grant := consumer.lease(limit=FRAME_JOBS, wait=timedelta(0)).grant.deliveries:
            found += (job_id(each.origin, each.first + n) for each in grant for n in range(len(each.bodies)))
        return found


def ready(manager: RunningManager, queue: str = "default") -> int:
    with manager.broker() as broker:
        return next((each.ready for each in broker.stats().queues if each.name == queue), 0)


class Halted:
    """A manager that serves nothing while the block runs."""

    def __init__(self, manager: RunningManager) -> None:
        self._manager = manager
        self._go_on = threading.Event()

    def __enter__(self) -> None:
        self._done = self._manager.server.ask(lambda: self._go_on.wait(SECONDS))

    def __exit__(self, *exception: object) -> None:
        self._go_on.set()
        assert self._done.result(SECONDS)


class TestInFlight:
    def test_frames_are_sent_while_no_answer_has_come_and_no_more_than_may_be(self, manager, near):
        jobs = (IN_FLIGHT_FRAMES + 4) * FRAME_JOBS
        found: list[Job] = []
        thread = threading.Thread(target=lambda: found.extend(near.client.submit_many("m:f", numbered(jobs))))
        with Halted(manager):
            thread.start()
            until(lambda: near.submits() == IN_FLIGHT_FRAMES)
            assert not found
        thread.join(SECONDS)
        assert len({job.id for job in found}) == jobs
        assert near.submits() == IN_FLIGHT_FRAMES + 4

    def test_so_it_is_with_an_executor(self, manager, near):
        jobs = 5 * FRAME_JOBS
        executor = BrokerExecutor(near.connect, patience=SECONDS)
        try:
            executor.submit("m:f", "first")
            assert executor.flush(SECONDS)
            before = near.submits()
            with Halted(manager):
                futures = [executor.submit("m:f", number) for number in range(jobs)]
                until(lambda: near.submits() > before)
            assert executor.flush(SECONDS)
            # A frame that is not full goes first, as nothing is on its way, and another one last.
            assert before + 5 <= near.submits() <= before + 7
            assert all(future.sent for future in futures)
            assert order_of(manager)[1:] == [future.job_id for future in futures]
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def test_the_bytes_on_their_way_are_bounded(self, manager, near):
        size = JOB_BYTES * 9 // 10
        read = count()
        specs = ((b"x" * size if next(read) >= 0 else b"",) for _ in range(60))
        answers = near.client.submit_each(JobSpec("m:f", args) for args in specs)
        first = next(answers)
        assert len(first) == len([job for job in first if isinstance(job, Job)]) == 4
        # Those on their way, the frame that waits for its turn, and the job that did not fit into it.
        assert next(read) * size <= IN_FLIGHT_BYTES + (len(first) + 1) * size
        assert sum(len(each) for each in answers) + len(first) == 60

    def test_answers_come_before_a_pause_of_the_source_is_over(self, near):
        answered: list[Job | ServiceError] = []
        seen: list[int] = []

        def specs() -> Iterator[JobSpec | None]:
            for number, spec in enumerate(numbered(3 * FRAME_JOBS), 1):
                yield spec
                if number % 1500 == 0:
                    yield None
                    seen.append(len(answered))

        for answers in near.client.submit_each(specs()):
            answered += answers
        assert seen == [1500, 3000]

    def test_an_error_of_the_source_comes_after_the_answers_to_all_frames(self, manager, near):
        def specs() -> Iterator[JobSpec]:
            yield from numbered(2 * FRAME_JOBS + 1)
            raise LookupError("no more input")

        answered: list[Job | ServiceError] = []

        def read() -> None:
            for answers in near.client.submit_each(specs()):
                answered.extend(answers)

        with pytest.raises(LookupError, match="no more input"):
            read()
        assert len(answered) == ready(manager) == 2 * FRAME_JOBS

    def test_what_nobody_asks_for_any_more_is_in_nobody_s_way(self, manager, near):
        stream = near.client.submit_each(numbered(5 * FRAME_JOBS))
        next(stream)
        stream.close()
        assert len(near.client.submit_many("m:f", numbered(3 * FRAME_JOBS))) == 3 * FRAME_JOBS


class TestCutConnections:
    @pytest.mark.parametrize("cut", [0, PART, 200])
    def test_all_frames_without_an_answer_are_sent_again_in_order_and_applied_once(
        self, manager, proxy, far, cut
    ):
        jobs = 6 * FRAME_JOBS
        (link,) = proxy.links()
        link.cut = cut
        found = far.client.submit_many("m:f", numbered(jobs))
        assert proxy.cuts == 1
        assert far.submits() > 6, "nothing was sent again"
        assert order_of(manager) == [job.id for job in found]
        assert len(found) == jobs

    def test_a_second_cut_while_they_are_sent_again_changes_nothing(self, manager, proxy, far):
        wanted = [0, 1]

        def cut() -> None:
            """Cut the replies to the first frame and, once they were, to the first that is sent again."""
            if wanted and proxy.cuts == wanted[0]:
                wanted.pop(0)
                for link in proxy.links():
                    link.cut = PART

        for broker in far.brokers:
            broker.before_submit = cut
        found = far.client.submit_many("m:f", numbered(28 * FRAME_JOBS))
        assert proxy.cuts == 2
        assert order_of(manager) == [job.id for job in found]

    def test_frames_of_an_executor_are_sent_again_too(self, manager, proxy, far):
        executor = BrokerExecutor(far.connect, patience=SECONDS)
        try:
            executor.submit("m:f", "first")
            assert executor.flush(SECONDS)
            for link in proxy.links():
                link.cut = PART
            futures = [executor.submit("m:f", number) for number in range(4 * FRAME_JOBS)]
            assert executor.flush(SECONDS)
            assert proxy.cuts
            assert order_of(manager)[1:] == [future.job_id for future in futures]
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def test_without_a_manager_the_jobs_of_a_stream_have_an_error(self, manager):
        brokers: list[ManagerBroker] = []

        def connect() -> ManagerBroker:
            brokers.append(ManagerBroker(manager.endpoint, manager.authkey, timeout=SECONDS))
            return brokers[-1]

        client = BrokerClient(connect)
        client.stats()
        stream = client.submit_each(numbered(3 * FRAME_JOBS))
        assert len(next(stream)) == FRAME_JOBS
        manager.server.stop()
        manager.until_ended()
        for broker in brokers:
            broker._timeout = 0.2
        with pytest.raises(ManagerUnreachable):
            client.submit_many("m:f", numbered(3 * FRAME_JOBS))
        client.close()


class TestRefusals:
    def test_a_full_queue_in_the_middle_refuses_its_own_jobs_alone(self, manager, near):
        near.client.options(queue="full").submit_many("m:f", [(1,)] * QUEUE_JOBS)
        specs = [*numbered(FRAME_JOBS), *numbered(FRAME_JOBS, queue="full"), *numbered(FRAME_JOBS)]
        kinds = [{type(answer) for answer in answers} for answers in near.client.submit_each(specs)]
        assert kinds == [{Job}, {QueueFull}, {Job}]
        assert ready(manager) == 2 * FRAME_JOBS

    def test_a_job_that_is_too_large_in_the_middle_fails_alone(self, manager, near):
        specs = numbered(5 * FRAME_JOBS)
        specs[2 * FRAME_JOBS + 500] = JobSpec("m:f", (" " * (JOB_BYTES + 1),))
        answers = [answer for answers in near.client.submit_each(specs) for answer in answers]
        assert isinstance(answers.pop(2 * FRAME_JOBS + 500), JobTooLarge)
        assert (
            len({answer.id for answer in answers if isinstance(answer, Job)})
            == ready(manager)
            == len(answers)
        )

    def test_the_first_refusal_ends_a_call_and_tells_how_many_were_accepted(self, manager, near):
        read = count()
        arguments = ((next(read),) for _ in range(4 * QUEUE_JOBS))
        with pytest.raises(QueueFull) as caught:
            near.client.submit_many("m:f", arguments)
        assert caught.value.__notes__ == [f"{ready(manager)} jobs of the same call were accepted"]
        assert ready(manager) == QUEUE_JOBS
        assert next(read) <= QUEUE_JOBS + (IN_FLIGHT_FRAMES + 2) * FRAME_JOBS

    def test_a_drain_in_the_middle_refuses_each_job_once(self, manager, near):
        stream = near.client.submit_each(numbered(4 * IN_FLIGHT_FRAMES * FRAME_JOBS // 4))
        answers = [*next(stream)]
        near.client.drain(refuse=True)
        answers += [answer for answers in stream for answer in answers]
        assert {type(answer) for answer in answers} <= {Job, Draining}
        assert sum(isinstance(answer, Job) for answer in answers) == ready(manager)
        assert len(answers) == IN_FLIGHT_FRAMES * FRAME_JOBS


def test_a_stream_over_tls_is_the_same(certificates: Path):
    tls = files(certificates, "client")
    with running_manager(tls=files(certificates, "manager")) as manager:
        client = Client(manager.endpoint, manager.authkey, tls)
        found = client.client.submit_many("m:f", [(number, "x" * 2000) for number in range(6 * FRAME_JOBS)])
        assert order_of(manager, tls) == [job.id for job in found]
        client.close()
