"""Ways in for a user's own things: tasks, keys, and a command line on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import ROOT, Project
from tests.support.readme import blocks, section

pytestmark = [pytest.mark.docker, pytest.mark.slow]

#: The Dockerfile for tasks of one's own, as the README has it.
(SIX_LINES,) = blocks(section("Deploy"), "dockerfile")
KEY = "a key from the operator's own store\n"
PACKAGE = """\
import humanize

def describe(count: int) -> str:
    return humanize.intcomma(count)
"""


@pytest.fixture
def own_image(image, tmp_path, client):
    """An image of the README's six lines, with a package that needs another."""
    (tmp_path / "requirements.txt").write_text("humanize==4.15.0\n")
    (tmp_path / "mytasks").mkdir()
    (tmp_path / "mytasks/__init__.py").write_text(PACKAGE)
    tag = image.replace(":latest", "-own:latest")
    base = f"svc:latest=docker-image://{image}"
    dockerfile = tmp_path / "Dockerfile.tasks"
    dockerfile.write_text(SIX_LINES)
    build = [
        "docker",
        "build",
        "--quiet",
        "--build-context",
        base,
        "--file",
        str(dockerfile),
        "--tag",
        tag,
        str(tmp_path),
    ]
    subprocess.run(build, check=True, timeout=280, stdout=subprocess.DEVNULL)
    yield tag
    client.images.remove(tag, force=True)


def test_the_six_lines_in_the_docs_are_those_that_are_tested():
    lines = (ROOT / "deploy/Dockerfile.tasks").read_text()
    assert len(lines.splitlines()) == 6
    assert lines == SIX_LINES
    assert lines in (ROOT / "docs/deploy.md").read_text()


def test_an_image_with_six_lines_more_runs_a_task_of_ones_own(service, project, own_image):
    """Beside the other workers: the job waits for the one that knows its task."""
    own = project.overridden(SVC_WORKER_IMAGE=own_image, SVC_TASKS="mytasks")
    worker = own.compose("run", "--detach", "--no-deps", "worker").stdout.strip()
    try:
        answer = service.svc("submit", "mytasks:describe", "1234567", "--wait")
    finally:
        subprocess.run(
            ["docker", "rm", "--force", worker], check=True, timeout=120, stdout=subprocess.DEVNULL
        )
    assert "1,234,567" in answer.stdout


def svc_on_the_host(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `svc` with the keys in *folder*, as docs/deploy.md says."""
    files = {"AUTHKEY_FILE": "authkey", "TLS_CERT": "cert.pem", "TLS_KEY": "key.pem", "TLS_CA": "ca.pem"}
    told = {f"SVC_{name}": str(folder / file) for name, file in files.items()}
    command = [sys.executable, "-m", "svc", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **told}
    )


def test_the_host_submits_with_a_copy_of_the_keys(service, tmp_path):
    keys = tmp_path / "svc-keys"
    service.compose("cp", "keys:/run/keys/cli", str(keys))
    submit = ("submit", "chores:nap", "0", "42", "--wait", "--manager", service.address("manager", 7077))
    answer = svc_on_the_host(keys, *submit)
    assert (answer.returncode, answer.stdout.split()[-1]) == (0, "42"), answer.stderr

    key = keys / "authkey"
    key.chmod(0o600)
    key.write_text("another key, which is long enough\n")
    refused = svc_on_the_host(keys, *submit)
    assert refused.returncode == 4
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr


def test_without_a_certificate_nobody_gets_to_the_authkeys_challenge(service, tmp_path):
    """The published port speaks TLS and nothing else, whatever key one has."""
    key = tmp_path / "authkey"
    service.compose("cp", "keys:/run/keys/cli/authkey", str(key))
    manager = ("--manager", service.address("manager", 7077), "--authkey-file", str(key))
    command = [sys.executable, "-m", "svc", "status", "--timeout", "1", *manager]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode in (3, 4)
    assert refused.stdout == ""


@pytest.fixture(scope="module")
def keyed(project: Project, image: str, tmp_path_factory) -> Iterator[Project]:
    """A second service, with the documented override for a key of one's own, and the tasks of the files."""
    folder = tmp_path_factory.mktemp("secret")
    key = folder / "own"
    key.write_text(KEY)
    key.chmod(0o444)  # a test that is not root cannot chown it to 10001
    settings = {**project.environment, "SVC_AUTHKEY": str(key), "SVC_CONSUMERS": "2"}
    files = ("compose.yaml", "deploy/compose.secret.yaml")
    with Project(f"{project.name}-key", settings, files).reaped() as running:
        running.up("--scale", "worker=1")
        yield running


def test_a_key_of_ones_own_replaces_the_generated_one_and_workers_do_not_get_it(keyed):
    assert keyed.compose("exec", "-T", "manager", "cat", "/run/secrets/svc_authkey").stdout == KEY
    status = ("exec", "-T", "manager", "svc", "status")
    assert keyed.compose(*status).returncode == 0
    refused = keyed.compose(*status, "--authkey-file", "/run/svc/authkey", check=False)
    assert refused.returncode == 4, "the generated key for everything is still let in"
    assert keyed.compose("exec", "-T", "worker", "ls", "/run/secrets").stdout == ""


def test_the_word_count_of_the_examples_runs_as_documented(keyed):
    folder = ROOT / "examples/wordcount"
    ids = keyed.cli("submit", "--from", "-", stdin=(folder / "jobs.ndjson").read_text()).stdout.split()
    counted = keyed.cli("results", "--ndjson", *ids).stdout
    total = [sys.executable, str(folder / "total.py")]
    said = subprocess.run(
        total, input=counted, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert said.splitlines()[0] in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["status"], "workers"),
        (["submit", "multiply", "6", "7", "--wait"], "42"),
        (["jobs", "list"], "ID"),
        (["queues", "--json"], "default"),
    ],
)
def test_a_command_in_a_container_of_its_own_prints_nothing_but_its_answer(service, argv, said):
    answer = service.cli(*argv)
    assert said in answer.stdout
    assert answer.stderr == ""
