"""The units of systemd fit the code: variables, limits and times; and systemd itself finds them sound."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from svc.declarations import declared, parse_seconds
from svc.server.connection_limits import Bounds
from svc.settings import ManagerSettings, WorkerSettings
from svc.wire import RELEASE
from tests.support.privileges import obtained
from tests.support.readme import section
from tests.support.svc import ROOT
from tests.support.units import MANAGER, UNITS, WORKER, analysed, value, values

#: The most that `systemd-analyze security` may find, in tenths; its own words for up to 2 are "OK".
EXPOSURE_MAX = {MANAGER: 15, WORKER: 20}
BOTH = pytest.mark.parametrize("unit", [MANAGER, WORKER], ids=lambda path: path.name)


@BOTH
def test_systemd_finds_no_mistake_in_a_unit(unit: Path, tmp_path):
    """The program is replaced, as it is not installed here; unknown words are mistakes."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("ExecStart=/opt/svc/bin/svc", f"ExecStart={sys.executable}"))
    found = obtained(lambda: analysed("verify", str(copy)))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@BOTH
def test_a_unit_may_do_little_beyond_its_work(unit: Path):
    found = obtained(
        lambda: analysed("security", "--offline=true", f"--threshold={EXPOSURE_MAX[unit]}", str(unit))
    )
    assert found.returncode == 0, found.stdout


@BOTH
def test_the_page_names_the_exposure_that_its_release_of_systemd_finds(unit: Path):
    page = (ROOT / "docs/deploy/hosts.md").read_text()
    said = re.search(rf"of ([\d.]+) for `{unit.stem}`[^()]*\(systemd (\d+)", page)
    assert said is not None
    here = obtained(lambda: analysed("--version")).stdout.split()[1]
    if here != said[2]:
        pytest.skip(f"systemd {here} is here, and the page has the figures of {said[2]}")
    found = analysed("security", "--offline=true", str(unit)).stdout
    assert f"exposure level for {unit.name}: {said[1]} " in found


def test_the_page_installs_this_release():
    installing = section("Install", ROOT / "docs/deploy/hosts.md")
    assert set(re.findall(r"/opt/svc-([\w.]+)", installing)) == {RELEASE}


@pytest.mark.parametrize(
    ("unit", "example", "settings"),
    [(MANAGER, "manager.env", ManagerSettings), (WORKER, "worker.env", WorkerSettings)],
    ids=["manager", "worker"],
)
def test_a_variable_of_a_unit_is_one_of_its_program(unit: Path, example: str, settings: type):
    text = " ".join(values(unit, "Environment")) + (UNITS / example).read_text()
    used = set(re.findall(r"\b(SVC_[A-Z_]+)=", text))
    known = {
        f"SVC_{name.upper().replace('-', '_')}" for name, each in declared(settings).items() if each.variable
    }
    assert len(used) >= 8
    assert used <= known


@BOTH
def test_a_credential_that_a_unit_uses_is_one_that_it_loads(unit: Path):
    loaded = {each.split(":")[0] for each in values(unit, "LoadCredential")}
    used = set(re.findall(r"%d/([\w.]+)", " ".join(values(unit, "Environment"))))
    assert used <= loaded


def test_the_manager_may_have_a_descriptor_for_each_connection():
    bounds = Bounds(connections=ManagerSettings().max_connections)
    assert int(value(MANAGER, "LimitNOFILE")) >= bounds.connections + bounds.half_open + 512
    page = (ROOT / "docs/deploy/hosts.md").read_text()
    assert f"`SVC_MAX_CONNECTIONS` is {bounds.connections:,} unless" in page
    assert f"`LimitNOFILE={value(MANAGER, 'LimitNOFILE')}`" in page


def test_a_leader_that_has_handed_over_is_started_again_as_a_standby():
    """It ends with 0, so that `on-failure` would leave the service without a standby."""
    assert value(MANAGER, "Restart") == "always"


def test_a_worker_is_killed_only_after_its_grace():
    example = dict(re.findall(r"^(SVC_\w+)=(.*)$", (UNITS / "worker.env").read_text(), re.MULTILINE))
    grace = parse_seconds(example["SVC_GRACE"])
    assert grace == WorkerSettings(tasks=("any",)).grace
    assert parse_seconds(value(WORKER, "TimeoutStopSec")) >= grace + 15


def test_a_worker_may_make_control_groups():
    """`svc.worker.control_group` makes one for each consumer; it cannot write to a protected tree."""
    assert value(WORKER, "Delegate") == "yes"
    assert values(WORKER, "ProtectControlGroups") == []
