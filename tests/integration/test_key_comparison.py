"""A standby compares its keys with the leader's: one of another deployment ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from svc.addresses import Address
from svc.app import key_comparison
from svc.app.key_comparison import KeyComparison
from svc.domain.roles import Role
from svc.errors import Conflict
from svc.server.keys import Key, KeyRing
from svc.settings import ManagerSettings
from svc.wire_tls import TlsFiles
from tests.support.certificates import files
from tests.support.manager import RunningManager, running_manager
from tests.support.managers import managers, metrics_of
from tests.support.nats_servers import running_nats
from tests.support.networks import dropping
from tests.support.workers import until

OURS, WORK, THEIRS = b"o" * 40, b"w" * 40, b"t" * 40


def never() -> None:
    pytest.fail("the keys are said to differ")


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., ManagerSettings]:
    """Return settings of a manager with our authkey and our key for workers."""

    def made(tls: TlsFiles | None = None) -> ManagerSettings:
        authkey, roles = tmp_path / "authkey", tmp_path / "roles"
        roles.mkdir(exist_ok=True)
        for path, key in ((authkey, OURS), (roles / "work.key", WORK)):
            path.write_bytes(key)
            path.chmod(0o600)
        plain = ManagerSettings(
            listen=Address("127.0.0.1", 0), http=None, authkey_file=authkey, role_keys=roles
        )
        return plain if tls is None else replace(plain, tls_cert=tls.cert, tls_key=tls.key, tls_ca=tls.ca)

    return made


def at(leader: RunningManager) -> str:
    return "{}:{}".format(*leader.endpoint)


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        ([Key(Role.ADMIN, OURS)], True),
        ([Key(Role.ADMIN, THEIRS), Key(Role.WORK, WORK)], True),
        ([Key(Role.ADMIN, THEIRS)], False),
    ],
)
def test_one_key_that_is_the_same_is_enough(settings, keys: list[Key], same: bool):
    comparison = KeyComparison(settings(), lambda: (), never)
    with running_manager(keys=KeyRing(keys)) as leader:
        assert comparison.compare(at(leader)) is same


def test_a_leader_that_cannot_be_asked_is_no_stranger(settings, certificates: Path):
    """Nobody answers, or one side has TLS and the other not yet."""
    plain, tls = settings(), settings(files(certificates, "manager"))
    with dropping() as dead:
        assert KeyComparison(plain, lambda: (), never).compare("{}:{}".format(*dead)) is None
    with running_manager(keys=KeyRing([Key(Role.ADMIN, THEIRS)])) as leader:
        assert KeyComparison(tls, lambda: (), never).compare(at(leader)) is None


def test_keys_are_compared_over_tls_by_whatever_name_the_leader_has(settings, certificates: Path):
    ours = files(certificates, "manager")
    comparison = KeyComparison(settings(ours), lambda: (), never)
    with running_manager(keys=KeyRing([Key(Role.ADMIN, OURS)]), tls=ours) as leader:
        assert comparison.compare(at(leader)) is True
    with running_manager(keys=KeyRing([Key(Role.ADMIN, THEIRS)]), tls=ours) as leader:
        assert comparison.compare(at(leader)) is False


class Told(KeyComparison):
    """A comparison whose answers a test gives; then it has succeeded."""

    def __init__(self, settings: ManagerSettings, *answers: bool | None) -> None:
        self.differed = threading.Event()
        self.over = threading.Event()
        self.answers = list(answers)
        super().__init__(settings, lambda: ("a:7077",), self.differed.set)

    def compare(self, leader: str) -> bool | None:
        if self.answers:
            return self.answers.pop(0)
        self.over.set()
        return True


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_comparison, "_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(key_comparison, "_AGAIN_SECONDS_MAX", 0.001)


@pytest.mark.usefixtures("at_once")
def test_an_authkey_that_is_changed_is_not_refused_while_the_leader_is_told_to_read_it(settings):
    changing = Told(settings(), False, False, False, False, None, False, False, False, False)
    changing.start()
    assert changing.over.wait(10)
    assert not changing.differed.is_set()
    changing.end()


@pytest.mark.usefixtures("at_once")
def test_a_leader_that_refuses_five_times_is_a_stranger(settings):
    strange = Told(settings(), *[False] * 5)
    strange.start()
    assert strange.differed.wait(10)
    with pytest.raises(Conflict, match="the manager that leads this journal, a:7077, has none of this"):
        strange.end()
    assert not strange.over.is_set()


@pytest.mark.slow
def test_a_second_deployment_of_the_same_name_is_refused(tmp_path: Path):
    with running_nats(tmp_path / "nats") as nats, managers(tmp_path, nats, "k") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        other = tmp_path / "other"
        other.write_bytes(THEIRS)
        other.chmod(0o600)
        made.flags = ("--authkey-file", str(other))
        second = made.start(1)

        assert second.wait(60) == 6
        told = made.log_of(1).read_text()
        assert (
            f"the manager that leads this journal, {made.listen[0]}, has none of this manager's keys" in told
        )
        assert [each["leader"] for each in made.events(1, "keys_differ")] == [made.listen[0]]
        assert made.ready(0)[0] == 200
        assert metrics_of(made.http[0])["svc_manager_term"] == 1

        # With the leader's key it stands by, and takes over.
        made.flags = ()
        made.start(1)
        until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
        until(lambda: made.ready(1)[0] == 200, 30)
