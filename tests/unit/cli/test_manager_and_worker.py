import sys
import sysconfig
from pathlib import Path

import pytest

from svc.addresses import Address, ManagerAddresses
from svc.domain.limits import Limits
from svc.envelope import PickleKeys
from svc.settings import ManagerSettings, WorkerSettings
from svc.wire_tls import TlsFiles

KEY = b"0123456789abcdef"
PICKLE_KEY = b"fedcba9876543210"


def manager(svc, started, *argv):
    ended = svc("manager", *argv)
    assert ended.code == 0, ended.err
    return started.managers[-1]


def worker(svc, started, *argv):
    ended = svc("worker", *argv)
    assert ended.code == 0, ended.err
    return started.workers[-1]


def test_a_manager_without_flags_has_the_documented_defaults(svc, started, authkey_file):
    found = manager(svc, started)
    assert found == ManagerSettings(
        listen=Address("127.0.0.1", 7077),
        http=Address("127.0.0.1", 9100),
        journal=Path("journal.sqlite"),
        authkey_file=authkey_file,
        limits=Limits(),
    )
    assert found.read_authkey() == KEY


def test_the_flags_of_a_manager_become_its_settings(svc, started, authkey_file):
    flags = "--listen [::]:1 --http off --journal /j --durability memory --lease 5s --retention 2h"
    more = "--dead-retention 3d --retain-count 9 --max-queue 8 --max-job-bytes 4KiB --max-connections 7"
    disk = "--ballast-bytes 1MiB --backups /b --accept-loss --journal-must-exist --accept-network-filesystem"
    disk += " --journal-marker /m --max-clock-jump 2d"
    rest = "--min-free 1GiB --announce /a --log-format json --log-level debug --max-per-address 6"
    bounds = "--max-jobs 5 --max-queues 4 --max-keys 3 --max-origins 2 --suspicion-budget 1"
    rest += " --max-buffered 256MiB"
    face = "--strict-auth --role-keys /k --tls-cert c.pem --tls-key c.key --tls-ca ca.pem"
    found = manager(svc, started, *f"{flags} {more} {bounds} {rest} {face} {disk}".split())
    assert found.tls == TlsFiles(Path("c.pem"), Path("c.key"), Path("ca.pem"))
    assert found == ManagerSettings(
        listen=Address("::", 1),
        http=None,
        journal=Path("/j"),
        durability="memory",
        limits=Limits(
            lease_seconds=5.0,
            max_job_bytes=4096,
            max_queue_jobs=8,
            max_jobs=5,
            max_queues=4,
            max_keys=3,
            max_origins=2,
            retention_seconds=7200.0,
            retention_jobs=9,
            dead_retention_seconds=3 * 86400.0,
            suspicion_budget=1,
            min_free_bytes=1 << 30,
        ),
        max_connections=7,
        max_per_address=6,
        max_buffered=256 << 20,
        strict_auth=True,
        authkey_file=authkey_file,
        role_keys=Path("/k"),
        tls_cert=Path("c.pem"),
        tls_key=Path("c.key"),
        tls_ca=Path("ca.pem"),
        ballast_bytes=1 << 20,
        accept_loss=True,
        journal_must_exist=True,
        journal_marker=Path("/m"),
        max_clock_jump=2 * 24 * 3600.0,
        accept_network_filesystem=True,
        backups=Path("/b"),
        announce=Path("/a"),
        log_format="json",
        log_level="debug",
    )


@pytest.fixture
def pickle_key_file(tmp_path):
    path = tmp_path / "pickle_key"
    path.write_bytes(PICKLE_KEY + b"\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("more", [("1MiB",), ("32MiB", "--max-job-bytes", "32MiB")])
def test_a_manager_whose_buffers_hold_no_largest_job_does_not_start(svc, more):
    ended = svc("manager", "--max-buffered", *more)
    assert ended.code == 2
    assert "is less than one message may take" in ended.err


def test_a_worker_that_accepts_pickles_without_a_key_does_not_start(svc, started):
    ended = svc("worker", "--accept", "pickle")
    assert (ended.code, started.workers) == (2, [])
    assert "svc auth generate --pickle" in ended.err


def test_the_authkey_is_no_key_for_pickles(svc, started, authkey_file):
    ended = svc("worker", "--accept", "pickle", "--pickle-key-file", str(authkey_file))
    assert ended.code == 2
    assert "which the manager has too" in ended.err


def test_the_pickle_key_is_found_by_its_variable(svc, started, pickle_key_file, monkeypatch):
    monkeypatch.setenv("SVC_PICKLE_KEY_FILE", str(pickle_key_file))
    assert worker(svc, started, "--accept", "pickle").read_pickle_keys(KEY) == PickleKeys((PICKLE_KEY,))


def test_a_worker_without_flags_has_the_documented_defaults(svc, started, authkey_file):
    found = worker(svc, started, "--tasks", "m")
    assert found.read_authkey() == KEY
    assert found == WorkerSettings(
        manager=ManagerAddresses((Address("127.0.0.1", 7077),)),
        http=Address("127.0.0.1", 9101),
        http_moves=True,
        authkey_file=authkey_file,
        tasks=("m",),
    )


@pytest.mark.parametrize("argv", [[], ["--tasks", ""], ["--tasks", " , "], ["--queues", "mail"]])
def test_a_worker_without_tasks_is_refused(svc, started, argv):
    ended = svc("worker", *argv)
    assert (ended.code, ended.out, started.workers) == (2, "", [])
    assert "--tasks MODULE (or SVC_TASKS)" in ended.err


@pytest.mark.parametrize("queues", ["", " ", " , "])
def test_a_worker_without_queues_is_refused(svc, started, queues):
    ended = svc("worker", "--tasks", "m", "--queues", queues)
    assert (ended.code, ended.out, started.workers) == (2, "", [])
    assert "name them with --queues" in ended.err


def test_one_that_runs_callables_needs_none(svc, started, pickle_key_file):
    flags = ("--accept", "pickle", "--pickle-key-file", str(pickle_key_file))
    assert worker(svc, started, *flags).tasks == ()


def test_only_the_usual_http_port_may_become_another_one(svc, started, monkeypatch, tmp_path):
    assert worker(svc, started, "--tasks", "m").http_moves
    assert not worker(svc, started, "--tasks", "m", "--http", "127.0.0.1:9101").http_moves
    (tmp_path / "svc.toml").write_text('[worker]\nhttp = "127.0.0.1:9101"\n')
    assert not worker(svc, started, "--tasks", "m").http_moves
    (tmp_path / "svc.toml").unlink()
    monkeypatch.setenv("SVC_HTTP", "127.0.0.1:9101")
    assert not worker(svc, started, "--tasks", "m").http_moves


@pytest.mark.parametrize("port", ["7999", " 7999 ", "0", "65535", "1"])
def test_a_number_alone_is_a_port_of_this_host(svc, started, port):
    assert manager(svc, started, "--listen", port).listen == Address("127.0.0.1", int(port))
    assert manager(svc, started, "--http", port).http == Address("127.0.0.1", int(port))
    if int(port):  # 0 is for listening alone
        found = worker(svc, started, "--tasks", "m", "--manager", port).manager
        assert found.pairs() == [("127.0.0.1", int(port))]


@pytest.mark.parametrize("port", ["65536", "99999", "123456789", "-1", ":7999"])
def test_a_number_that_is_no_port_is_refused(svc, started, port):
    ended = svc("manager", f"--listen={port}")
    assert (ended.code, started.managers) == (2, [])
    assert "is not an address" in ended.err


def test_a_host_alone_has_the_usual_port(svc, started):
    found = manager(svc, started, "--listen", "localhost", "--http", "localhost")
    assert (found.listen.port, found.http.port) == (7077, 9100)


def test_the_flags_of_a_worker_become_its_settings(svc, started, authkey_file, pickle_key_file):
    flags = "--manager host:1 --tasks a,b.c --queues x,,y, --consumers 4 --http :: --accept pickle"
    assert svc("worker", *flags.split()).code == 2  # `::` has to be [::]:PORT
    flags += f" --pickle-key-file {pickle_key_file}"
    flags = (
        flags.replace("::", "[::]:9")
        + " --grace 1m --import-timeout 5s --name w --announce a --log-level error"
    )
    flags += " --tls-cert c.pem --tls-key c.key --tls-ca ca.pem --tls-name jobs"
    found = worker(svc, started, *flags.split())
    assert found.read_pickle_keys(KEY) == PickleKeys((PICKLE_KEY,))
    assert found.tls == TlsFiles(Path("c.pem"), Path("c.key"), Path("ca.pem"), "jobs")
    assert found == WorkerSettings(
        manager=ManagerAddresses((Address("host", 1),)),
        http=Address("::", 9),
        authkey_file=authkey_file,
        tasks=("a", "b.c"),
        queues=("x", "y"),
        consumers=4,
        accept=("plain", "pickle"),
        pickle_key_file=pickle_key_file,
        grace=60.0,
        import_timeout=5.0,
        name="w",
        tls_cert=Path("c.pem"),
        tls_key=Path("c.key"),
        tls_ca=Path("ca.pem"),
        tls_name="jobs",
        announce=Path("a"),
        log_level="error",
    )


def test_the_flag_of_an_idle_time_that_ends_nothing_is_refused(svc, started, monkeypatch):
    refused = svc("worker", "--tasks", "m", "--idle", "5s")
    assert (refused.code, started.workers) == (2, [])
    assert "--until-empty" in refused.err
    assert worker(svc, started, "--tasks", "m", "--idle", "5s", "--until-empty").idle == 5.0
    monkeypatch.setenv("SVC_UNTIL_EMPTY", "true")
    assert worker(svc, started, "--tasks", "m", "--idle", "6s").idle == 6.0


def test_a_variable_may_name_the_idle_time_for_all_workers(svc, started, monkeypatch):
    monkeypatch.setenv("SVC_IDLE", "5s")
    assert worker(svc, started, "--tasks", "m").idle == 5.0


def test_a_worker_finds_task_modules_in_the_working_directory(svc, started, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    library = sysconfig.get_path("stdlib")
    worker(svc, started, "--tasks", "m")
    place = sys.path.index(str(tmp_path))
    assert library in sys.path[:place], "no module of it hides one of the standard library"
    assert not [entry for entry in sys.path[:place] if entry.endswith("site-packages")]


@pytest.mark.parametrize(
    "argv",
    [
        "manager --durability never",
        "manager --lease soon",
        "manager --max-job-bytes big",
        "manager --max-queue 0",
        "manager --listen a:b:c",
        "worker --consumers 0",
        "worker --consumers many",
        "worker --accept yaml",
        "worker --log-format xml",
        "worker --tls-cert c.pem",
        "manager --tls-cert c.pem --tls-ca ca.pem",
        "tunnel",
        "tunnel --listen 0.0.0.0:1 --tls-cert c.pem --tls-key c.key --tls-ca ca.pem",
    ],
)
def test_a_setting_that_makes_no_sense_is_a_usage_error_in_one_line(svc, argv):
    ended = svc(*argv.split())
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_the_authkey_is_shown_nowhere(svc, started):
    assert "0123456789abcdef" not in repr(manager(svc, started))
    assert "0123456789abcdef" not in repr(worker(svc, started, "--tasks", "m"))
