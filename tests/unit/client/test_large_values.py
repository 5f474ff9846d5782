"""Bytes and files that travel in pieces, from a client to a task and back."""

from __future__ import annotations

import errno
import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import svc
from svc import codec
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.background import LARGE_JOBS_MAX
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.domain.job import ITEM, Outcome
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.errors import CodecError, Conflict, JobFailed, JobTooLarge, LargeValueLost
from svc.large import Kind, LargeReference, pieces_of, reference_in, safe_name
from svc.server.plain_values import as_answer
from svc.testing import local_client, run_jobs

PIECE = 64 * 1024
LIMITS = Limits(
    max_job_bytes=200_000, piece_bytes=PIECE, max_value_bytes=2_000_000, all_values_bytes=20_000_000
)
BIG = os.urandom(5 * PIECE + 17)
TASKS = "tests.support.large_tasks"


@pytest.fixture
def queue() -> Iterator[LocalQueue]:
    queue = LocalQueue(limits=LIMITS)
    yield queue
    queue.close()


@pytest.fixture
def client(queue: LocalQueue) -> BrokerClient:
    return local_client(queue)


@pytest.fixture
def file(tmp_path: Path) -> svc.File:
    path = tmp_path / "scan.tif"
    path.write_bytes(BIG)
    return svc.File(path)


def ran(queue: LocalQueue, job: svc.Job) -> Any:
    run_jobs(queue, [TASKS])
    return job.result(timeout=0)


# --- there and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("task", ["echo", "echo_beside"])
def test_bytes_over_the_limit_come_back_as_they_were(queue, client, kind, task):
    found = ran(queue, client.submit(f"{TASKS}:{task}", kind(BIG)))
    assert found == BIG
    assert type(found) is kind


def test_a_view_arrives_as_bytes_also_one_with_gaps(queue, client):
    found = ran(queue, client.submit(f"{TASKS}:echo", value=memoryview(BIG * 2)[::2]))
    assert found == (BIG * 2)[::2]


def test_bytes_up_to_the_limit_travel_in_the_body(queue, client):
    job = client.submit(f"{TASKS}:echo", BIG[:100_000])
    assert job.view().codec == codec.PLAIN
    assert ran(queue, job) == BIG[:100_000]


def test_several_arguments_over_the_limit_together_are_large(queue, client):
    job = client.submit(f"{TASKS}:echo", value=BIG[:150_000])
    both = client.submit("m:f", BIG[:150_000], other=BIG[:150_000])
    assert (job.view().codec, both.view().codec) == (codec.PLAIN, codec.LARGE)


def test_a_file_is_read_under_its_name_and_gone_after_the_attempt(queue, client, file, tmp_path, monkeypatch):
    monkeypatch.setenv("LARGE_TASKS_FOLDER", str(tmp_path))
    job = client.submit(f"{TASKS}:slow", file, 0.0)
    where = Path(str(ran(queue, job)))
    assert where.name == "scan.tif"
    assert where != file.path
    assert not where.exists()
    assert not where.parent.exists()


def test_a_file_comes_back_as_a_file_that_lives_as_long_as_its_object(queue, client, file, tmp_path):
    found = ran(queue, client.submit(f"{TASKS}:echo", file))
    assert isinstance(found, svc.File)
    assert (found.name, found.size) == ("scan.tif", len(BIG))
    with found.open() as content, open(found, "rb") as again:  # noqa: PTH123  # it is path-like
        assert content.read() == again.read() == BIG
    assert found.save(tmp_path / "copy").read_bytes() == BIG
    path = found.path
    del found
    gc.collect()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"x", BIG[:PIECE], BIG[: 2 * PIECE]])
def test_files_of_all_sizes_travel(queue, client, tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    found = ran(queue, client.submit(f"{TASKS}:digest", svc.File(tmp_path / "f", name="../g")))
    assert found[:2] == ["g", len(content)]


def test_a_result_is_saved_without_holding_it(queue, client, file, tmp_path):
    jobs = [client.submit(f"{TASKS}:echo", value) for value in (BIG, file, b"small")]
    run_jobs(queue, [TASKS])
    assert [job.save(tmp_path / "out", 0).read_bytes() for job in jobs] == [BIG, BIG, b"small"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "scan.tif"]


def test_only_bytes_and_files_are_saved(queue, client, tmp_path):
    job = client.submit(f"{TASKS}:echo", 7)
    run_jobs(queue, [TASKS])
    with pytest.raises(CodecError, match="int"):
        job.save(tmp_path / "out", 0)
    other = client.submit(f"{TASKS}:echo", b"x")
    run_jobs(queue, [TASKS])
    with pytest.raises(CodecError, match="cannot be"):
        other.save(tmp_path / "missing" / "out", 0)


def test_streams_maps_and_executors_carry_them_too(queue, client):
    jobs = client.submit_many(f"{TASKS}:size_of", [(BIG,), (b"x",), (BIG * 2,)])
    executor = BrokerExecutor(client)
    future = executor.submit(f"{TASKS}:echo", BIG)
    executor.flush(30)
    run_jobs(queue, [TASKS])
    assert [job.result(timeout=0) for job in jobs] == [len(BIG), 1, 2 * len(BIG)]
    assert future.result(30) == BIG
    executor.shutdown()


def test_a_repeated_key_is_the_same_job_if_the_value_is_the_same(queue, client):
    keyed = client.options(key="k")
    first = keyed.submit(f"{TASKS}:size_of", BIG)
    other = local_client(queue).options(key="k").submit(f"{TASKS}:size_of", BIG)
    run_jobs(queue, [TASKS])
    assert first.result(timeout=0) == other.result(timeout=0) == len(BIG)
    with pytest.raises(Conflict):
        keyed.submit(f"{TASKS}:size_of", BIG[::-1])


def test_a_task_that_fails_gets_its_large_argument_again(queue, client):
    job = client.options(backoff=0.0).submit(f"{TASKS}:size_of", BIG, 1)
    run_jobs(queue, [TASKS])
    with pytest.raises(JobFailed, match="ArgumentError"):
        job.result(timeout=0)


def test_a_file_that_a_worker_has_no_room_for_is_tried_again(queue, client, file, monkeypatch):
    job = client.options(backoff=60.0).submit(f"{TASKS}:digest", file)

    def full(self: Path, *args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        patched.setattr(svc.large.File, "open", full)
        run_jobs(queue, [TASKS])
    view = job.view()
    assert (view.state, view.attempts[0].cause) == ("scheduled", "failed")
    assert "No space left" in view.attempts[0].error.message


# --- refusals -----------------------------------------------------------------------------------------------


def test_a_file_inside_another_value_is_refused_with_its_place(client, file):
    with pytest.raises(CodecError, match=r"argument 1\[0\].*svc.File is an argument itself"):
        client.submit("m:f", [file])


def test_a_task_that_returns_a_file_inside_another_value_fails(queue, client, file):
    with pytest.raises(JobFailed, match="is an argument itself, or the result itself"):
        ran(queue, client.submit(f"{TASKS}:deep", file))


def test_a_missing_file_is_refused(client, tmp_path):
    with pytest.raises(CodecError, match="No such file"):
        client.submit("m:f", svc.File(tmp_path / "none"))


def test_values_over_the_limit_are_refused_before_a_piece_is_sent(queue, client):
    with pytest.raises(JobTooLarge, match="--max-value-bytes"):
        client.submit("m:f", bytes(LIMITS.max_value_bytes + 1))
    assert not queue.host.state.ledger.large.by_origin


def test_too_many_large_arguments_are_refused(client, file):
    with pytest.raises(JobTooLarge, match="16 large arguments"):
        client.submit("m:f", *[file] * 17)


def test_a_result_over_the_limit_fails_the_job(queue, client):
    with pytest.raises(JobFailed, match="--max-value-bytes"):
        ran(queue, client.submit(f"{TASKS}:made", 2))


def test_a_manager_without_large_values_refuses_files_and_takes_bytes_as_before(file):
    queue = LocalQueue(limits=Limits(max_job_bytes=200_000, max_value_bytes=0))
    client = local_client(queue)
    with pytest.raises(CodecError, match="takes no files"):
        client.submit("m:f", file)
    with pytest.raises(JobTooLarge):
        client.submit("m:f", BIG)
    queue.close()


def test_a_file_is_no_pickle(file):
    with pytest.raises(TypeError, match="codec plain"):
        pickle.dumps(file)


def test_an_argument_that_is_no_file_is_refused_if_the_task_asks_for_one(queue, client):
    with pytest.raises(
        JobFailed, match=r"pass svc\.File\(path\) in Python; from the command line a task gets bytes"
    ):
        ran(queue, client.submit(f"{TASKS}:digest", "scan.tif"))


# --- references never look like values ----------------------------------------------------------------------


def large_result(queue: LocalQueue, client: BrokerClient) -> Outcome:
    job = client.submit(f"{TASKS}:echo", BIG)
    run_jobs(queue, [TASKS])
    (outcome,) = client.outcomes([job.id], 0)
    return outcome


def test_whoever_cannot_fetch_a_large_result_is_told_so(queue, client):
    outcome = large_result(queue, client)
    with pytest.raises(CodecError, match="--output FILE"):
        codec.decode_result(outcome.result)
    told = as_answer(outcome)
    assert isinstance(told, dict)
    assert "extension" in told["error"] or "pieces" in told["error"]


def test_a_stock_consumer_gets_no_job_with_large_arguments(queue, client):
    client.submit(ITEM[1:] + ":x", BIG)
    state = queue.host.state
    assert state.lanes.best((frozenset(("default",)), None, None)) is None


def test_a_reference_within_another_value_is_an_error(queue, client):
    reference = LargeReference(1, 5, bytes(32))
    body, _ = codec.encode_with_types([[reference]], {}, lambda count: ["1"] * count)
    with pytest.raises(CodecError, match="not an argument itself"):
        codec.decode_arguments(codec.LARGE, body, (codec.PLAIN,))
    with pytest.raises(CodecError):
        codec.decode_arguments(codec.TYPED, body, (codec.PLAIN,))
    assert reference_in(body) is None


def test_content_that_is_not_what_was_sent_is_an_error():
    reference = LargeReference(1, 4, bytes(32), Kind.BYTES)
    with pytest.raises(CodecError, match="not what its sender"):
        list(pieces_of(reference, 2, lambda offsets: [b"ab" for _ in offsets]))


def test_a_result_that_the_manager_has_lost_is_an_error_and_no_value(queue, client):
    outcome = large_result(queue, client)
    ledger = queue.host.state.ledger
    for group in list(ledger.large):
        ledger.large.drop(group)
    assert outcome.state is JobState.SUCCEEDED
    with pytest.raises(LargeValueLost):
        client.result(outcome.id, 0)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("a.b", "a.b"), ("../x", "x"), ("C:\\d\\e.txt", "e.txt"), ("..", "file"), ("", "file"), ("a\0", "file")],
)
def test_a_name_from_elsewhere_is_a_name_in_any_directory(name, safe):
    assert safe_name(name) == safe


def test_a_client_of_another_queue_reads_nothing(queue, client):
    outcome = large_result(queue, client)
    other = LocalQueue()
    stranger = BrokerClient(lambda: LocalBroker(other))
    with pytest.raises(svc.UnknownJob):
        stranger._session.values.fetch(outcome.id, LargeReference(0, 5, bytes(32)))
    other.close()


# --- lists of jobs ------------------------------------------------------------------------------------------


def test_jobs_of_one_list_have_large_values_each_of_its_own(
    queue: LocalQueue, client: BrokerClient, file: svc.File
) -> None:
    other = BIG[::-1]
    values = [BIG, "small", other, file, svc.File(file.path)]
    jobs = [client.submit(f"{TASKS}:echo_all", value) for value in values]
    assert run_jobs(queue, [TASKS]) == 5
    said = ["scan.tif", len(BIG), True]
    assert [job.result(timeout=0) for job in jobs] == [BIG, "small", other, said, said]


def test_a_large_result_of_a_list_that_is_too_large_fails_its_own_job_alone(
    queue: LocalQueue, client: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.large_tasks.RESULTS", [b"x" * 2_000_001, b"small"])
    jobs = [client.submit(f"{TASKS}:results") for _ in range(2)]
    run_jobs(queue, [TASKS])
    with pytest.raises(JobFailed, match="the manager's limit is 2000000"):
        jobs[0].result(timeout=0)
    assert jobs[1].result(timeout=0) == b"small"


# --- memory of a client that submits many -------------------------------------------------------------------


def test_a_stream_of_jobs_holds_two_large_values_at_most(client):
    alive, most = [0], 0

    class Value(bytes):
        def __del__(self) -> None:
            alive[0] -= 1

    def values() -> Iterator[tuple[object]]:
        nonlocal most
        for _ in range(12):
            alive[0] += 1
            most = max(most, alive[0])
            yield (Value(BIG),)

    assert len(client.submit_many("m:f", values())) == 12
    gc.collect()
    assert most <= 3


def test_an_executor_holds_a_few_large_values_at_most(queue, client):
    executor = BrokerExecutor(client)
    waiting = []
    put = executor._dispatch.pipeline

    for _ in range(10):
        executor.submit(f"{TASKS}:size_of", BIG)
        waiting.append(put.unsent())
    executor.flush(30)
    run_jobs(queue, [TASKS])
    executor.shutdown()
    assert max(waiting) <= LARGE_JOBS_MAX
