"""The trials of many hosts judge what they have seen as they say; no time is asserted."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from benchmarks import beside, hosts, ideal, lanes, mixed, releases, taking_back
from benchmarks.redis_consumers import RedisConsumers
from benchmarks.systems import Release


def test_a_mixed_load_has_one_long_job_in_a_hundred_and_the_same_order_each_time():
    sizes = mixed.Sizes(jobs=300)
    pauses = mixed.load(sizes)
    assert (pauses.count(sizes.long), pauses.count(sizes.short)) == (3, 297)
    assert pauses == mixed.load(sizes)


def test_the_ideal_does_each_sleep_once_and_counts_from_the_first():
    times = ideal.times([0.05, 0.0, 0.0, 0.0, 0.0, 0.0], 2)
    assert len(times) == 6
    assert min(began for began, _ in times) == 0.0
    assert sum(ended - began >= 0.05 for began, ended in times) >= 1


def test_the_ideal_rate_is_no_higher_than_that_of_sleeps_that_last_as_long_as_they_should():
    assert 0 < ideal.rate(0.005, 40, 4) <= 4 / 0.005


def test_short_jobs_that_began_on_the_consumer_of_the_long_one_after_it_are_behind_it():
    sizes = beside.Sizes(consumers=2, jobs=3, short=1.0, long=5.0)
    short = [(11.0, 12.0, 7), (10.0, 11.0, 8), (16.0, 17.0, 8)]
    trial = beside.judged(sizes, "first", 0.5, 10.0, (11.0, 16.0, 8), short)
    assert trial.behind == 1
    assert trial.seconds == 7.0
    assert trial.bound == pytest.approx(1.1 * 3.0 + 2 * 1.0)


def test_the_pause_of_an_idle_consumer_counts_from_the_beginning_of_the_long_job():
    long_job = (10.0, 20.0, 1)
    assert taking_back.longest_pause(long_job, [(9.0, 10.5, 2), (10.75, 11.0, 2), (13.0, 14.0, 2)]) == (
        2.0,
        0,
    )
    assert taking_back.longest_pause(long_job, [(12.5, 13.0, 2), (8.0, 9.0, 1)]) == (2.5, 0)


def test_jobs_behind_the_long_one_are_a_pause_until_its_end():
    assert taking_back.longest_pause((10.0, 20.0, 1), [(10.0, 12.0, 2), (20.0, 21.0, 1)]) == (8.0, 1)
    assert taking_back.longest_pause((10.0, 20.0, 1), [(20.0, 21.0, 1)]) == (10.0, 1)


def test_a_trial_of_releases_runs_each_part_from_the_tree_of_its_release(tmp_path: Path):
    for layout in ("service", "service/svc"):
        package = tmp_path / layout
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        with releases.release_in(tmp_path) as found:
            assert found.path is not None
            assert found.package == package.name
            assert [each.resolve() for each in found.path.iterdir()] == [package]


def test_a_trial_of_releases_counts_the_runs_of_all_jobs():
    with releases.release_in(Path(__file__).parents[2]) as same:
        trial = releases.trials(same)[2]
        assert trial.manager == same != Release()
        seen = releases.see(trial, 200, 0.002)
    assert (seen.kills, seen.runs) == (0, taking_back.Runs(0, 0))


def test_without_peers_every_measure_of_hosts_is_of_svc_alone():
    alone = hosts.FULL.without_peers()
    for name in ("link", "clients", "workers", "mixed"):
        assert getattr(hosts.FULL, name).peers
        assert not getattr(alone, name).peers
    assert alone.link.delays == hosts.FULL.link.delays


def test_consumers_of_a_list_take_each_job_once_and_report_it():
    """Without a Redis: the answers that one gives are written out here."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        RedisConsumers(listener.getsockname(), 1) as many,
        listener.accept()[0] as server,
    ):
        assert b"BLMOVE" in server.recv(4096)
        server.sendall(b"$5\r\njob-1\r\n")
        many.serve(20, 1)
        asked = server.recv(4096)
        assert [asked.count(each) for each in (b"LREM", b"RPUSH", b"BLMOVE")] == [1, 1, 1]
        server.sendall(b":1\r\n:1\r\n$5\r\njo")
        server.sendall(b"b-2\r\n")
        many.serve(20, 1)
        assert server.recv(4096).count(b"job-2") == 2


def test_grants_beside_so_many_lanes_are_timed_once_their_index_is_complete(monkeypatch: pytest.MonkeyPatch):
    """With 100,000 lanes the index is made over several turns, and no lease was answered in the first one."""
    for module in ("indexes", "lanes"):
        monkeypatch.setattr(f"svc.domain.scheduling.{module}.INDEXED_AT_ONCE", 100)
    found = {(each.kind, each.lanes) for each in lanes.measure(1_000) if each.seconds > 0}
    assert found == {(kind, count) for kind in ("priorities", "tasks", "queues") for count in (10, 1_000)}
