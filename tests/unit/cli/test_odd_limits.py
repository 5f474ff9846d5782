"""A limit that is negative, zero, no number or absurd is refused wherever one can be given, and named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from svc import task
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.domain.members import Member
from svc.errors import BadRequest, ConfigurationError
from svc.server.plain import SharedObjects
from tests.unit.cli.conftest import Ended, Started

Svc = Callable[..., Ended]

SECONDS: tuple[Any, ...] = (
    -1,
    -0.001,
    0,
    0.0,
    1e-9,
    math.nan,
    math.inf,
    -math.inf,
    1e30,
    10**400,
    4e9,
    "5",
    True,
    [],
)
BYTES: tuple[Any, ...] = (-1, 0, 1, 1000, 3.2e9, math.nan, math.inf, 1 << 53, 10**400, "200MiB", True, [])
ODD = [
    *((name, value) for name in ("timeout", "soft_timeout") for value in SECONDS),
    *(("max_rss", value) for value in BYTES),
]
#: As text, on a command line or in a file of settings.
ODD_SECONDS = ("-1", "0", "nan", "inf", "1e30", "1e400", "36501d", "", "soon", "٣")
ODD_BYTES = ("-1", "0", "1000", "nan", "inf", "1e9", f"{1 << 53}", "99999999GiB", "", "much")
odd = pytest.mark.parametrize(("name", "value"), ODD)


@pytest.fixture
def client(queue: LocalQueue):
    with BrokerClient(lambda: LocalBroker(queue), patience=30.0) as made:
        yield made


def told_of_a_job(name: str) -> str:
    return f"the job is out of bounds: {name}: |the option {name} of a job is a number of "


@odd
def test_of_a_task(name: str, value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=f"the {name} of a task is a .*number.*; leave it out for none"
    ):
        task(**{name: value})


def test_the_bounds_of_a_size_are_told_of_a_task_as_a_user_writes_them() -> None:
    with pytest.raises(ConfigurationError, match="a whole number of bytes from 1MiB to 1048576GiB, not 1;"):
        task(max_rss=1)


@odd
def test_of_a_job(name: str, value: Any, client: BrokerClient) -> None:
    with pytest.raises(BadRequest, match=told_of_a_job(name)):
        client.options(**{name: value}).submit("t:f")
    assert not client.find()


@odd
def test_of_an_executor(name: str, value: Any, client: BrokerClient) -> None:
    with BrokerExecutor(client) as executor:
        error = executor.options(**{name: value}).submit("t:f").exception(timeout=30)
    assert isinstance(error, BadRequest)
    assert re.match(told_of_a_job(name), str(error))
    assert not client.find()


@odd
def test_of_a_job_of_a_plain_client(name: str, value: Any) -> None:
    host = QueueHost(MemoryJournal())
    face, told = SharedObjects(host), list[Any]()
    for method, arguments in (("put", ({"task": "t:f", name: value},)), ("qsize", ())):
        face.carry_out(face.method("tasks", method), Member(), arguments, {}, told.append)
        host.turn()
    if (name, repr(value)) in _CONVERTED:
        assert told == [None, 1]
    else:
        assert (isinstance(told[0], Exception), told[1]) == (True, 0), told


#: Such a client may give a number as anything that Python converts to one.
_CONVERTED = {
    *((name, value) for name in ("timeout", "soft_timeout") for value in ("'5'", "True")),
    ("max_rss", "3200000000.0"),
}


def test_a_soft_timeout_that_would_never_be_raised(client: BrokerClient) -> None:
    for soft_timeout in (5.0, 6.0):
        with pytest.raises(ConfigurationError, match="is not below the timeout"):
            task(timeout=5, soft_timeout=soft_timeout)
        with pytest.raises(BadRequest, match="is not below the timeout"):
            client.options(timeout=5, soft_timeout=soft_timeout)


@pytest.mark.parametrize("value", [*(v for v in SECONDS if v not in (0, 1e-9) or v is False), None])
def test_of_the_grace_of_a_cancel(value: Any, client: BrokerClient) -> None:
    job = client.submit("t:f")
    for cancel in (job.cancel, lambda grace: client.cancel([job], grace=grace), client_wide(client)):
        with pytest.raises(BadRequest, match="the grace of a cancel is a number of seconds from 0 to"):
            cancel(grace=value)
    assert job.view().state == "ready"


def client_wide(client: BrokerClient) -> Callable[..., int]:
    return lambda grace: client.cancel_all(grace=grace)


@pytest.mark.parametrize(
    ("flag", "values"),
    [("--job-timeout", ODD_SECONDS), ("--soft-timeout", ODD_SECONDS), ("--max-rss", ODD_BYTES)],
)
def test_on_the_command_line(flag: str, values: tuple[str, ...], svc: Svc, client: BrokerClient) -> None:
    for value in values:
        ended = svc("submit", "t:f", f"{flag}={value}")
        assert (ended.code, ended.out) == (2, ""), value
        assert flag in ended.err
        assert len(ended.err.splitlines()) == 1
    assert not client.find()


@odd
def test_in_a_line_of_jobs(name: str, value: Any, svc: Svc, client: BrokerClient, tmp_path: Any) -> None:
    lines = tmp_path / "jobs.ndjson"
    lines.write_text(json.dumps({"task": "t:f", name: value}) + "\n")
    ended = svc("submit", "--from", str(lines))
    assert (ended.code in (2, 7), ended.out) == (True, "")
    is_json = not isinstance(value, float) or math.isfinite(value)
    assert (name if is_json else "JSON is malformed") in ended.err
    assert not client.find()


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("default-timeout", tuple(set(ODD_SECONDS) - {"0"})),
        ("grace", tuple(set(ODD_SECONDS) - {"0"})),
        ("recycle-age", tuple(set(ODD_SECONDS) - {"0"})),
        ("recycle-rss", tuple(set(ODD_BYTES) - {"0"})),
        ("recycle-jobs", ("-1", "nan", "inf", "1e9", "1.5", "1000000001", "", "٣")),
    ],
)
def test_in_the_settings_of_a_worker(
    setting: str,
    values: tuple[str, ...],
    svc: Svc,
    started: Started,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable = f"SVC_{setting.upper().replace('-', '_')}"
    for value in values:
        ended = svc("worker", "--tasks", "t", f"--{setting}={value}")
        assert (ended.code, ended.out) == (2, ""), value
        assert f"--{setting}" in ended.err
        (tmp_path / "svc.toml").write_text(f"[worker]\n{setting.replace('-', '_')} = {json.dumps(value)}\n")
        ended = svc("worker", "--tasks", "t")
        assert ended.code == 2, value
        assert setting in ended.err.replace("_", "-")
        (tmp_path / "svc.toml").unlink()
        if value:
            monkeypatch.setenv(variable, value)
            ended = svc("worker", "--tasks", "t")
            assert ended.code == 2, value
            assert variable in ended.err
            monkeypatch.delenv(variable)
    assert started.workers == []


@pytest.mark.parametrize(
    "argv",
    [
        ["jobs", "list", "--queue", ""],
        ["jobs", "list", "--task", ""],
        ["jobs", "cancel", "--task", "t", "--queue", ""],
        ["jobs", "cancel", "--queue", "q", "--task", ""],
        ["jobs", "requeue", "--all", "--queue", ""],
        ["jobs", "purge", "--state", "dead", "--queue", ""],
        ["jobs", "purge", "--state", "dead", "--task", ""],
        ["drain", "--worker", ""],
        ["resume", "--worker", ""],
        ["submit", "t", "--key", ""],
        ["submit", "t", "--queue", ""],
        ["run", "--queue", "", "--", "true"],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_refused_and_does_not_mean_all(svc: Svc, argv):
    """As that of an unset variable of a shell."""
    ended = svc(*argv)
    assert (ended.code, ended.out) == (2, "")
    option = argv[argv.index("") - 1]
    assert f"'{option}': it is empty; write a name, or leave the option out" in ended.err
