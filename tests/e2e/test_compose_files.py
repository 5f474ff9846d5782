"""The promises of the compose files, checked before anything runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.docker import ROOT, Project

pytestmark = pytest.mark.docker
OURS = ("keys", "manager", "worker", "cli")
#: Settings that the files alone give to a service, and nobody sets.
FIXED = {"SVC_MANAGER", "SVC_LISTEN", "SVC_HTTP", "SVC_JOURNAL", "SVC_JOURNAL_MARKER", "SVC_AUTHKEY_FILE",
         "SVC_ROLE_KEYS", "SVC_TLS_CERT", "SVC_TLS_KEY", "SVC_TLS_CA", "SVC_ADVERTISE", "SVC_MIRROR",
         "SVC_NATS_TLS_CERT", "SVC_NATS_TLS_KEY", "SVC_NATS_TLS_CA"}  # fmt: skip


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


def test_only_the_keys_service_can_write_keys_and_each_other_service_reads_its_own(services):
    mounts = {
        name: {
            volume["source"]: volume.get("read_only", False)
            for volume in service.get("volumes", [])
            if volume["target"].startswith(("/run/svc", "/run/keys", "/run/secrets"))
        }
        for name, service in services.items()
    }
    handed = {name: f"{name}-keys" for name in ("manager", "worker", "cli")}
    assert mounts.pop("keys") == dict.fromkeys((*handed.values(), "authority"), False)
    assert {name: seen for name, seen in mounts.items() if seen} == {
        name: {volume: True} for name, volume in handed.items()
    }
    assert services["keys"]["network_mode"] == "none"


def test_who_dials_or_is_dialled_uses_tls(services):
    for name in ("manager", "worker", "cli"):
        told = services[name]["environment"]
        assert {told[f"SVC_TLS_{part}"] for part in ("CERT", "KEY", "CA")} == {
            "/run/svc/cert.pem", "/run/svc/key.pem", "/run/svc/ca.pem"
        }, name  # fmt: skip


def test_workers_and_the_command_line_are_in_a_network_that_leads_nowhere(model, services):
    assert model["networks"]["queue"]["internal"] is True
    for name in ("worker", "cli"):
        assert set(services[name]["networks"]) == {"queue"}
    assert set(services["manager"]["networks"]) == {"queue", "outside"}, "or its ports cannot be published"


def test_the_journal_and_the_marker_that_it_was_made_are_in_different_volumes(services):
    manager = services["manager"]
    targets = {volume["target"]: volume["source"] for volume in manager["volumes"]}
    homes = [Path(manager["environment"][name]).parent for name in ("SVC_JOURNAL", "SVC_JOURNAL_MARKER")]
    assert [targets[str(home)] for home in homes] == ["journal", "journal-marker"]


def test_no_key_stands_in_the_files(model):
    assert set(re.findall(r"SVC_AUTHKEY\w*", str(model))) == {"SVC_AUTHKEY_FILE"}


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
    assert used - FIXED == explained


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


@pytest.mark.parametrize("name", ["one", "Two Clones", "svc.old", "_third"])
def test_a_clone_is_named_after_its_folder(client, tmp_path, name):
    """Two clones on a host must not share containers and a journal."""
    folder = tmp_path / name
    folder.mkdir()
    for entry in ("compose.yaml", "deploy"):
        (folder / entry).symlink_to(ROOT / entry)
    foreign = ("SVC_", "COMPOSE_")
    told = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    command = ["docker", "compose", "--env-file", os.devnull, "config", "--format", "json"]
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, check=True, timeout=60)
    model = json.loads(done.stdout)
    assert model["name"] == re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")
    assert model["volumes"]["journal"]["name"] == f"{model['name']}_journal"


def test_a_command_waits_for_no_other_service(services):
    """Messages of Compose about each of them would precede every answer."""
    assert not services["cli"].get("depends_on")
