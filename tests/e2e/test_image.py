"""The image and the containers made from it: no rights, no secrets, nothing writable."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.support.docker import ROOT, Project

pytestmark = [pytest.mark.docker, pytest.mark.slow]
SERVICES = ("keys", "manager", "worker")
ROLE_KEYS = {"submit.key", "work.key", "read.key", "admin.key"}
PRIVATE_KEYS = {"ca.key", "manager.key", "worker.key", "cli.key"}
#: The files that each running service must have, and no more.
OWN = {
    "manager": ROLE_KEYS | {"manager.key"},
    "worker": {"work.key", "worker.key"},
}
#: A key in a checkout, as users leave them there.
CANARY = b"canary-4cb2d1f0a97e4b6c8d35-planted-authkey"
PLANTED = (".env", "svc_authkey", "secrets/keys/admin.key", "examples/svc_authkey", "service/svc_authkey",
           "examples/secrets/tls/ca.key", "deploy/svc_authkey", "deploy/secrets/work.key")  # fmt: skip
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "README.md", "LICENSE",
           "service", "examples", "deploy")  # fmt: skip


@pytest.fixture(scope="module")
def secrets(stack: Project, tmp_path_factory) -> dict[str, bytes]:
    """Every key and private key of the running service, as who has the Docker socket gets them."""
    folder = tmp_path_factory.mktemp("keys") / "authority"
    stack.compose("cp", "keys:/run/keys/authority", str(folder))
    found = {each.name: told(each.read_bytes()) for each in folder.rglob("*.key")}
    assert set(found) == {*ROLE_KEYS, "shell.key", *PRIVATE_KEYS}
    assert min(map(len, found.values())) >= 32
    return found


def told(content: bytes) -> bytes:
    """Return the secret part of a key's file: the line after the heading, if it has one."""
    lines = content.split(b"\n")
    return lines[1] if lines[0].startswith(b"-----") else lines[0]


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
    assert "svc" in names
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


def test_a_key_is_readable_for_its_user_alone(service):
    modes = run(service, "manager", "sh", "-c", "cd /run/svc; stat -c '%a %u:%g %n' * roles/*").stdout
    files = [line for line in modes.splitlines() if not line.endswith(" roles")]
    assert len(files) == 4 + 3
    assert [line for line in files if not line.startswith("400 10001:10001 ")] == []
    for user in ("0", "10002"):
        cat = ("exec", "-T", "-u", user, "worker", "cat", "/run/svc/authkey", "/run/svc/key.pem")
        other = service.compose(*cat, check=False)
        assert other.returncode != 0
        assert other.stderr.count("Permission denied") == 2
    changed = run(service, "worker", "sh", "-c", "rm -f /run/svc/authkey")
    assert "Read-only file system" in changed.stderr


def test_each_service_has_its_own_keys_and_no_others(service, secrets):
    for name, own in OWN.items():
        everything = (
            "find / -xdev -type f -readable -user 10001 -exec cat {} +; find /run -type f -exec cat {} +"
        )
        seen = run(service, name, "sh", "-c", everything).stdout.encode()
        assert {key for key, secret in secrets.items() if secret in seen} == own, name


def test_a_worker_may_work_and_nothing_else(service):
    refused = run(service, "worker", "svc", "drain")
    assert refused.returncode == 4
    assert "'work' may not 'drain'" in refused.stderr


def test_the_running_containers_have_the_bounds_of_the_files(service, client):
    for name in SERVICES:
        for container in service.containers(client, name):
            host = container.attrs["HostConfig"]
            assert host["ReadonlyRootfs"], name
            assert not host["Privileged"], name
            assert (host["CapAdd"], host["CapDrop"]) == (None, ["ALL"]), name
            assert host["Ulimits"] == [{"Name": "core", "Hard": 0, "Soft": 0}], name
            assert host["SecurityOpt"] == ["no-new-privileges:true"], name
            assert host["Tmpfs"] == {"/tmp": "size=64m,mode=1777"}, name
            assert 0 < host["PidsLimit"] <= 512, name
            assert 0 < host["Memory"] <= 1 << 30, name
            assert 0 < host["NanoCpus"] <= 10**9, name
    (network,) = client.networks.list(names=[f"{service.name}_queue"])
    assert network.attrs["Internal"]


def test_a_worker_reaches_the_manager_and_nothing_beyond(service):
    routes = run(service, "worker", "cat", "/proc/net/route").stdout.splitlines()[1:]
    assert [line.split()[1] for line in routes if line.split()[1] == "00000000"] == [], "a default route"


def test_the_keys_are_in_no_image_argument_environment_log_or_metric(service, client, image, secrets):
    said = [json.dumps(client.images.get(image).attrs), json.dumps(client.images.get(image).history())]
    for name in SERVICES:
        for container in service.containers(client, name):
            said += [json.dumps(container.attrs), container.logs().decode()]
    for name, port in (("manager", 9100), ("worker", 9101)):
        processes = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        get = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        )
        said.append(run(service, name, "sh", "-c", f'{processes}; python -c "{get}"').stdout)
        assert "SVC_TLS_KEY" in said[-1], "no environment was read"
        assert "# TYPE svc_" in said[-1], "no metrics were read"
    said.append(service.svc("status", "--json").stdout)
    assert all(said)
    assert not [key for key, secret in secrets.items() for text in said if secret.decode() in text]


def test_a_key_left_in_the_checkout_is_in_no_layer(image, client, tmp_path):
    """Built as users build it, from a tree in which keys lie about."""
    for name in CONTEXT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    for name in PLANTED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(CANARY)
    tag = image.replace(":latest", "-canary:latest")
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(tmp_path)], check=True, timeout=280,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        search = (
            f"grep -rlF {CANARY.decode()} / --exclude-dir=proc --exclude-dir=sys; ls /opt/svc/bin/svc-keys"
        )
        found = client.containers.run(tag, ["-c", search], entrypoint="sh", remove=True, user="0")
        layers = client.images.get(tag).history()  # newest first
    finally:
        client.images.remove(tag, force=True)
    assert found.decode().split() == ["/opt/svc/bin/svc-keys"]
    ours = [layer["CreatedBy"] for layer in layers if layer["Size"]]
    copies = [place for place, made_by in enumerate(ours) if made_by.startswith("COPY")]
    assert copies == list(range(len(copies))), "what a later layer hides would not have been found"
