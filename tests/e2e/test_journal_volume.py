"""A journal whose volume has gone: the manager of Compose begins with no empty one in its place."""

from __future__ import annotations

import pytest

from tests.support.docker import Project, wait_for

pytestmark = pytest.mark.docker


def test_a_volume_that_has_gone_is_no_empty_queue(project: Project, image: str, client):
    name = f"{project.name}-volume"
    with Project(name, project.environment).reaped() as stack:
        stack.up("manager")
        stack.svc("submit", "m:f", "1")
        for _ in range(2):
            stack.compose("restart", "manager")
            stack.up("manager")
        assert '"scheduled"' in stack.svc("status", "--json").stdout

        stack.compose("rm", "--stop", "--force", "manager")
        client.volumes.get(f"{name}_journal").remove()
        stack.compose("up", "--detach", "manager")
        wait_for(lambda: "says that it was made once" in stack.logs(), 120, "the manager refuses to start")
        assert "manager_started" not in stack.logs()

        stack.compose("rm", "--stop", "--force", "manager")
        forget = ("run", "--rm", "--no-deps", "--entrypoint", "rm", "manager", "/var/lib/svc-marker/journal")
        stack.compose(*forget)
        stack.up("manager")
