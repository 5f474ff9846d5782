"""One image and one running service for the whole session."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e.readings import WORKERS
from tests.support.docker import Project, engine

_HERE = Path(__file__).parent
_OVERRIDE = "tests/e2e/compose.e2e.yaml"
_ANY_PORT = {"SVC_PORT": "0", "SVC_HTTP_PORT": "0", "SVC_PROMETHEUS_PORT": "0", "SVC_GRAFANA_PORT": "0"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give time for a first build of the image; every wait inside a test has a limit of its own."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    found = engine()
    yield found
    found.close()


@pytest.fixture(scope="session")
def project(client) -> Project:
    """The project of this session, with nothing running."""
    name = f"svc-e2e-{os.getpid()}-{secrets.token_hex(2)}"
    settings = {
        "SVC_IMAGE": f"{name}:latest",
        "SVC_CONSUMERS": "4",
        "SVC_GRACE": "10s",
        "SVC_STOP_GRACE": "20s",
    }
    return Project(name, {**_ANY_PORT, **settings})


@pytest.fixture(scope="session")
def image(project: Project, client) -> Iterator[str]:
    """The image, built as `docker compose up` builds it in a fresh clone."""
    project.overridden(SVC_REVISION="e2e").compose("build", "--quiet", seconds=280)
    tag = project.environment["SVC_IMAGE"]
    yield tag
    client.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def stack(project: Project, image: str) -> Iterator[Project]:
    """Manager and workers, running and healthy."""
    with project.overridden(_OVERRIDE).reaped() as running:
        running.up("--scale", f"worker={WORKERS}")
        yield running


@pytest.fixture
def service(stack: Project, client) -> Project:
    """The running service, with as many healthy workers as it started with, whatever the test before did."""
    health = [each.health for name in ("manager", "worker") for each in stack.containers(client, name)]
    if health != ["healthy"] * (1 + WORKERS):
        stack.heal(WORKERS)
    return stack
