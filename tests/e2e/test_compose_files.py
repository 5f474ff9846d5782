"""What the compose files promise before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docker import ROOT, Project

pytestmark = pytest.mark.docker
OURS = ("authkey", "manager", "worker", "cli")


@pytest.fixture(scope="module")
def model(client):
    """The files as a fresh clone has them, with every profile."""
    return Project("svc-model").config()


@pytest.fixture(scope="module")
def services(model):
    return model["services"]


def test_the_root_file_brings_all_services(services):
    assert set(services) == {*OURS, "prometheus", "grafana"}


def test_every_service_runs_without_rights_on_a_read_only_root(services):
    for name, service in services.items():
        assert service["read_only"], name
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert not any("docker.sock" in volume["source"] for volume in service.get("volumes", [])), name


def test_every_service_has_bounds(services):
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) <= 1, f"{name}: Docker refuses more CPUs than a small host has"
        assert int(limits["memory"]) <= 1 << 30, name
        assert limits["pids"] <= 512, name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert all("size=" in mount for mount in service["tmpfs"]), name


def test_ports_are_published_on_the_loopback_only(services):
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert {port["target"] for port in published["manager"]} == {7077, 9100}
    assert not published["worker"]


def test_workers_can_be_scaled(services):
    assert services["worker"]["scale"] == 2
    assert "container_name" not in services["worker"]


def test_a_worker_that_exits_with_0_stays_down(services):
    assert services["worker"]["restart"] == "on-failure"


def test_docker_waits_longer_than_a_worker_does(services):
    minutes = re.fullmatch(r"(?:(\d+)m)?(\d+)s", services["worker"]["stop_grace_period"])
    assert minutes is not None
    assert int(minutes[1] or 0) * 60 + int(minutes[2]) >= 30 + 10


def test_only_the_authkey_service_can_write_the_key(services):
    writers = {
        name
        for name, service in services.items()
        for volume in service.get("volumes", [])
        if volume["target"] == "/run/secrets" and not volume.get("read_only")
    }
    assert writers == {"authkey"}
    assert services["authkey"]["network_mode"] == "none"


def test_no_key_stands_in_the_files(model):
    assert "SVC_AUTHKEY" not in str(model)


def test_images_of_others_are_pinned_to_a_version(services):
    others = [service["image"] for name, service in services.items() if name not in OURS]
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in others), others


def test_mounted_folders_exist(services):
    """Docker would make a missing one, as root, and the service would start with no settings."""
    sources = [v["source"] for s in services.values() for v in s.get("volumes", []) if v["type"] == "bind"]
    assert sources
    assert [source for source in sources if not Path(source).is_dir()] == []


def test_every_variable_is_explained():
    files = [*ROOT.glob("deploy/compose*.yaml"), ROOT / "compose.yaml"]
    used = {name for file in files for name in re.findall(r"\bSVC_[A-Z_]+\b", file.read_text())}
    example = (ROOT / "deploy/env.example").read_text()
    explained = set(re.findall(r"^#(SVC_[A-Z_]+)=", example, re.MULTILINE))
    assert used - {"SVC_MANAGER", "SVC_LISTEN", "SVC_HTTP", "SVC_JOURNAL"} == explained


def test_the_defaults_in_the_example_are_those_of_the_files():
    files = [*ROOT.glob("deploy/compose*.yaml")]
    given = {
        name: default
        for file in files
        for name, default in re.findall(r"\$\{(SVC_[A-Z_]+):-([^${}]+)\}", file.read_text())
    }
    example = dict(
        re.findall(r"^#(SVC_[A-Z_]+)=(.*)$", (ROOT / "deploy/env.example").read_text(), re.MULTILINE)
    )
    assert given == {name: example[name] for name in given}
