"""The replicated log on real servers: every odd server or stream is refused, and faults lose nothing."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing

import pytest

from svc.addresses import parse_address
from svc.cli.certificates import make_authority
from svc.errors import (
    AuthenticationFailed,
    ConfigurationError,
    Conflict,
    Deposed,
    Forbidden,
    JournalError,
    JournalUnreachable,
    ServiceError,
)
from svc.journal_address import NatsUser, StreamAddress
from svc.server.journal.jetstream.frames import HEADER_BYTES, Frame, FrameAssembler, FrameKind
from svc.server.journal.jetstream.log import LogFacts, LogMessage, Tail, Unanswered
from svc.server.journal.jetstream.nats_log import NatsLog
from svc.server.journal.jetstream.opening import open_log
from svc.server.journal.jetstream.stream_form import new_stream, permissions
from svc.server.journal.jetstream.writer import FrameWriter
from tests.support.certificates import NAMES, files
from tests.support.nats_logs import address_of, asked, run_on
from tests.support.nats_servers import NatsCluster, NatsOptions, running_nats


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_nats(tmp_path_factory.mktemp("nats")) as cluster:
        yield cluster


async def facts(log: NatsLog) -> LogFacts:
    return await log.facts()


def test_without_a_server_the_start_ends_with_the_addresses(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        nobody = StreamAddress((parse_address(f"127.0.0.1:{port}"), parse_address("127.0.0.1:1")), "j")
        with pytest.raises(
            JournalUnreachable, match=f"127.0.0.1:{port},127.0.0.1:1/j.*within 1 s"
        ) as refused:
            asyncio.run(open_log(nobody, seconds=1))
    assert refused.value.exit_code == 3


def test_a_server_without_jetstream_is_refused(tmp_path):
    with (
        running_nats(tmp_path, options=NatsOptions(jetstream=False)) as cluster,
        pytest.raises(ConfigurationError, match="no JetStream"),
    ):
        run_on(cluster, facts)


def test_a_max_payload_below_the_floor_is_refused(tmp_path):
    with (
        running_nats(tmp_path, options=NatsOptions(max_payload=65_535)) as cluster,
        pytest.raises(ConfigurationError, match="at least 65536"),
    ):
        run_on(cluster, facts)


def test_more_replicas_than_servers_are_refused_and_nothing_is_made(server):
    with pytest.raises(ConfigurationError, match="3 replicas there"):
        run_on(server, facts, replicas=3, name="many")
    assert asked(server, "STREAM.INFO.many", {})["error"]["err_code"] == 10059


def test_a_stream_that_must_exist_is_not_made(server):
    with pytest.raises(JournalError, match="no stream absent"):
        run_on(server, facts, create=False, name="absent")
    assert asked(server, "STREAM.INFO.absent", {})["error"]["err_code"] == 10059


def test_a_stream_that_is_made_passes_its_own_checks(server):
    for _ in range(2):
        found = run_on(server, facts, name="sound")
    assert found.warnings[0].startswith("one server alone")
    assert "do not tell whether they sync" in found.warnings[1]


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({"metadata": {}}, Conflict, "no journal of svc"),
        ({"subjects": ["other"]}, Conflict, "no journal of svc"),
        ({"metadata": {"svc.journal": "2"}}, JournalError, "version 2"),
        ({"max_bytes": 1 << 20}, ConfigurationError, "max_bytes is 1048576"),
        ({"max_age": 10**9 * 200}, ConfigurationError, "max_age"),
        ({"max_msgs": 100}, ConfigurationError, "max_msgs is 100"),
        ({"discard": "old"}, ConfigurationError, "discard is old"),
        ({"retention": "workqueue"}, ConfigurationError, "retention is workqueue"),
        ({"storage": "memory"}, ConfigurationError, "storage is memory"),
        ({"allow_rollup_hdrs": True}, ConfigurationError, "allow_rollup_hdrs"),
        ({"deny_delete": True}, ConfigurationError, "deny_delete"),
        ({"deny_purge": True}, ConfigurationError, "deny_purge"),
        ({"allow_direct": False}, ConfigurationError, "allow_direct"),
        ({"duplicate_window": 10**9}, ConfigurationError, "duplicate_window"),
        ({"sources": [{"name": "elsewhere"}]}, ConfigurationError, "sources"),
        ({"subjects": [], "mirror": {"name": "elsewhere"}}, ServiceError, "no journal of svc|mirror"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_stream_that_is_not_ours_or_loses_messages_is_refused_and_stays_as_it_is(
    server, changes, kind, why
):
    name = f"odd-{'-'.join(changes)}-{abs(hash(str(changes)))}"
    made = asked(server, f"STREAM.CREATE.{name}", {**new_stream(name, 1), **changes})
    assert "error" not in made
    before = asked(server, f"STREAM.INFO.{name}", {})
    with pytest.raises(kind, match=why) as refused:
        run_on(server, facts, name=name)
    assert type(refused.value) is kind or kind is ServiceError
    after = asked(server, f"STREAM.INFO.{name}", {})
    assert (after["config"], after["state"]) == (before["config"], before["state"])
    asked(server, f"STREAM.DELETE.{name}", {})


def test_one_replica_where_three_are_wanted_is_refused(server):
    run_on(server, facts, name="single", replicas=1)
    with pytest.raises(ConfigurationError, match="has 1 replica, and 3 are wanted"):
        run_on(server, facts, name="single", replicas=3)


def test_a_user_with_the_least_permissions_does_all_and_others_are_told_what_they_lack(tmp_path):
    users = {
        "least": ("right", permissions("j")),
        "poor": ("right", {"publish": {"deny": ["$JS.API.STREAM.CREATE.>"]}}),
    }

    async def use(log: NatsLog) -> Tail:
        await log.append(b"one", expected=0, message_id="1")
        await log.append(b"two", expected=1, message_id="2")
        await log.purge(2)
        async with aclosing(log.follow(2)) as following:
            assert await anext(following) == LogMessage(2, b"two")
        return await log.tail()

    with running_nats(tmp_path, options=NatsOptions(users=users)) as cluster:
        with pytest.raises(AuthenticationFailed, match="refuse the user"):
            run_on(cluster, facts, user=NatsUser("least", "wrong"))
        with pytest.raises(AuthenticationFailed, match="refuse the user"):
            run_on(cluster, facts)
        with pytest.raises(Forbidden, match=r"STREAM\.CREATE\.j"):
            run_on(cluster, facts, name="j", user=NatsUser("poor", "right"))
        assert run_on(cluster, use, name="j", user=NatsUser("least", "right")) == Tail(2, b"two")


def test_tls_lets_in_clients_with_a_certificate_alone(tmp_path):
    make_authority(tmp_path, NAMES)
    with running_nats(tmp_path / "nats", options=NatsOptions(tls=files(tmp_path, "manager"))) as cluster:
        assert run_on(cluster, facts, tls=files(tmp_path, "client")).messages == 0
        with pytest.raises(JournalUnreachable):
            run_on(cluster, facts, seconds=1)


def test_a_server_that_syncs_later_is_refused_if_the_account_may_ask(tmp_path):
    options = NatsOptions(sync="2m", tells_settings=True)
    with running_nats(tmp_path, options=options) as cluster:
        with pytest.raises(ConfigurationError, match="n0 does not sync each write"):
            run_on(cluster, facts, user=NatsUser("told", "right"))
        told = run_on(cluster, facts, user=NatsUser("told", "right"), synced=False)
        assert "n0 does not sync each write" in told.warnings[-1]


def test_a_message_that_someone_has_deleted_is_no_gap_for_a_follower(server):
    async def story(log: NatsLog) -> None:
        for number in range(3):
            await log.append(b"x", expected=number, message_id=str(number))
        await asyncio.to_thread(asked, server, "STREAM.MSG.DELETE.cut", {"seq": 2})
        async with aclosing(log.follow(1)) as following:
            assert await anext(following) == LogMessage(1, b"x")
            with pytest.raises(JournalError, match="message 2 of the stream cut was deleted"):
                await anext(following)

    run_on(server, story, name="cut")


def test_a_connection_that_the_client_library_gives_up_is_made_anew(server):
    async def story(log: NatsLog) -> None:
        await log.append(b"x", expected=0, message_id="1")
        await log._connection.client.close()
        async with asyncio.timeout(45):
            while True:
                try:
                    assert await log.tail() == Tail(1, b"x")
                    break
                except Unanswered:
                    await asyncio.sleep(0.01)
        async with aclosing(log.follow(1)) as following:
            assert await anext(following) == LogMessage(1, b"x")

    run_on(server, story, name="again")


@pytest.mark.slow
def test_a_writer_leaves_a_server_that_is_cut_off_from_the_others(tmp_path):
    async def story(log: NatsLog) -> int:
        writer = FrameWriter(log, term=1, writer=7, end=0, message_max=1000)
        await writer.append(Frame(FrameKind.TERM))
        url = log._connection.client.connected_url
        assert url is not None
        cluster.cut_off(cluster.addresses.index(url.netloc))
        return (await writer.append(Frame(FrameKind.COMMIT))).last

    with running_nats(tmp_path, 3, NatsOptions(partitions=True)) as cluster:
        assert run_on(cluster, story, name="j") == 2


@pytest.mark.long
def test_a_writer_that_is_cut_off_with_the_leader_of_the_stream_writes_nothing_after_the_next_term(tmp_path):
    """The simulation has it by the thousand; this is the same on real servers."""

    async def story(log: NatsLog) -> list[tuple[int, FrameKind]]:
        leader = cluster.wait_leader("j")
        whole = address_of(cluster, "j")
        near = StreamAddress((whole.servers[leader],), "j")
        far = StreamAddress(tuple(each for each in whole.servers if each not in near.servers), "j")
        cut_off, other = await open_log(near), await open_log(far)
        old = FrameWriter(cut_off, term=1, writer=7, end=0, message_max=1000)
        await old.append(Frame(FrameKind.TERM))
        cluster.cut_off(leader)
        stuck = asyncio.ensure_future(old.append(Frame(FrameKind.COMMIT)))
        new = FrameWriter(other, term=2, writer=8, end=1, message_max=1000)
        await new.append(Frame(FrameKind.TERM))
        assert not stuck.done()
        cluster.join(leader)
        with pytest.raises(Deposed, match="in term 2"):
            await stuck
        await new.append(Frame(FrameKind.COMMIT))
        assembler = FrameAssembler(0)
        async with aclosing(other.follow(1)) as following:
            messages = [await anext(following) for _ in range(new.end)]
        stored = [assembler.add(message.sequence, message.data) for message in messages]
        await cut_off.close()
        await other.close()
        return [(each.origin.term, each.frame.kind) for each in stored if each]

    with running_nats(tmp_path, 3, NatsOptions(partitions=True)) as cluster:
        written = run_on(cluster, story, name="j")
    assert written == [(1, FrameKind.TERM), (2, FrameKind.TERM), (2, FrameKind.COMMIT)]


async def write_rows(log: NatsLog, count: int) -> None:
    """Write *count* rows, each in a frame of three messages."""
    tail = await log.tail()
    writer = FrameWriter(log, term=1, writer=7, end=tail.last, message_max=HEADER_BYTES + 50)
    for number in range(count):
        await writer.append(Frame(FrameKind.COMMIT, [(number, b"x" * 100)]))


def kill_all(cluster: NatsCluster, _leader: int) -> None:
    """Kill all servers at once, and start them again."""
    for number in range(3):
        cluster.kill(number)
    for number in range(3):
        cluster.restart(number, wait=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        NatsCluster.kill,
        NatsCluster.begin_stop,
        pytest.param(NatsCluster.freeze, marks=pytest.mark.long),
        pytest.param(kill_all, marks=pytest.mark.long),
    ],
)
def test_a_follower_and_a_writer_go_on_after_the_leader_of_the_stream_or_all_are_gone(tmp_path, fault):
    count = 60

    async def story(log: NatsLog) -> list[int]:
        writing = asyncio.ensure_future(write_rows(log, count))
        found: list[int] = []
        assembler = FrameAssembler(0)
        async with aclosing(log.follow(1)) as following:
            async for message in following:
                stored = assembler.add(message.sequence, message.data)
                found += [number for number, _ in stored.frame.rows] if stored else []
                if message.sequence == 50:
                    fault(cluster, cluster.wait_leader("j"))
                if len(found) == count:
                    break
        await writing
        return found

    with running_nats(tmp_path, 3) as cluster:
        assert run_on(cluster, story, name="j") == list(range(count))
