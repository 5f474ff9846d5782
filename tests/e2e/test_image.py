"""The image and the containers made from it: no rights, no secrets, nothing writable."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.docker import Project

pytestmark = [pytest.mark.docker, pytest.mark.slow]
SERVICES = ("authkey", "manager", "worker")


@pytest.fixture(scope="module")
def key(stack: Project, tmp_path_factory) -> str:
    """The key of the running service, as an operator gets it."""
    path = tmp_path_factory.mktemp("key") / "svc_authkey"
    stack.compose("cp", "manager:/run/secrets/svc_authkey", str(path))
    assert path.stat().st_mode & 0o077 == 0
    text: str = path.read_text().strip()
    assert len(text) >= 32
    return text


def run(service: Project, name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return service.compose("exec", "--no-TTY", name, *command, check=False)


def test_the_image_names_a_numeric_user_an_entry_point_and_a_signal(image, client):
    config = client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["svc"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "svc", "health"]
    assert config["Healthcheck"]["StartInterval"] == 1_000_000_000
    assert config["Labels"]["org.opencontainers.image.revision"] == "e2e"
    assert config["Labels"]["org.opencontainers.image.version"]


def test_the_image_holds_no_build_tools_no_sources_and_no_secrets(image, client):
    listing = "ls -A /run/secrets /var/lib/svc /app/tasks; ls -d /src; ls /opt/svc/lib/python*/site-packages"
    found = client.containers.run(image, ["-c", listing], entrypoint="sh", remove=True, network_disabled=True)
    names = found.decode().split()
    assert names[:3] == ["/app/tasks:", "/run/secrets:", "/var/lib/svc:"]
    assert "service" in names
    assert not {"setuptools", "pip", "pytest"} & set(names)


def test_our_layers_add_less_than_40_megabytes_to_the_base(image, client):
    layers = client.images.get(image).history()  # newest first
    first = next(place for place, layer in enumerate(layers) if "useradd" in layer["CreatedBy"])
    assert 0 < sum(layer["Size"] for layer in layers[: first + 1]) < 40_000_000


def test_nobody_is_root_and_no_right_is_left(service):
    for name in ("manager", "worker"):
        status = run(service, name, "cat", "/proc/self/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4
        assert int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


def test_only_tmp_and_the_journal_can_be_written(service):
    refused = run(service, "worker", "sh", "-c", "touch /app/x || touch /opt/svc/x || touch /var/lib/svc/x")
    assert refused.returncode != 0
    assert refused.stderr.count("Read-only file system") == 3
    assert run(service, "worker", "touch", "/tmp/x").returncode == 0
    assert run(service, "manager", "sh", "-c", "test -w /var/lib/svc").returncode == 0


def test_the_key_is_readable_for_its_user_alone(service):
    assert (
        run(service, "worker", "stat", "-c", "%a %u:%g", "/run/secrets/svc_authkey").stdout
        == "400 10001:10001\n"
    )
    for user in ("0", "10002"):
        other = service.compose(
            "exec", "-T", "-u", user, "worker", "cat", "/run/secrets/svc_authkey", check=False
        )
        assert other.returncode != 0
        assert "Permission denied" in other.stderr
    changed = run(service, "worker", "sh", "-c", "rm -f /run/secrets/svc_authkey")
    assert "Read-only file system" in changed.stderr


def test_the_key_is_in_no_image_argument_environment_log_or_metric(service, client, image, key):
    told = [json.dumps(client.images.get(image).attrs), json.dumps(client.images.get(image).history())]
    for name in SERVICES:
        for container in service.containers(client, name):
            told += [json.dumps(container.attrs), container.logs().decode()]
    for name in ("manager", "worker"):
        told.append(run(service, name, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout)
    told += [service.svc("metrics").stdout, service.svc("status", "--json").stdout]
    assert all(told)
    assert not [text for text in told if key in text]
