"""Containers of Docker with the users, rights, variables, mounts and limits of pods, without a cluster."""

from __future__ import annotations

import functools
import io
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.docker import wait_for
from tests.support.kubernetes import Manifest, Pod

_LABEL = "svc-test"
#: Waits for the end of its input, which also comes if the test process is killed, then removes everything.
_REAP = """\
cat >/dev/null
docker ps --all --quiet --filter "$1" | xargs -r docker rm --force --volumes
docker network ls --quiet --filter "$1" | xargs -r docker network rm
docker volume ls --quiet --filter "$1" | xargs -r docker volume rm --force
"""
_SIZES = {"": 1, "Mi": 1 << 20, "Gi": 1 << 30}
#: Asks a path of a pod by its address, as the kubelet does, and prints the status and the answer.
_GET = """\
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2]))
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def size(quantity: str) -> int:
    """Return the bytes of a quantity such as `1Gi`."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _SIZES[unit]


class PodContainers:
    """A network with containers that stand for pods, and volumes that stand for claims; both are removed.

    Attributes:
        name: the beginning of the names of all of them.
    """

    def __init__(self, client: docker.DockerClient, image: str, name: str) -> None:
        """Make the network."""
        self._client, self._image, self.name = client, image, name
        self._claims: dict[str, str] = {}
        self._labels = {_LABEL: name}
        client.networks.create(name, internal=True, labels=self._labels)

    def run(self, pod: Pod, name: str, *aliases: str) -> Container:
        """Start the container of a *pod*; others reach it by its *name* and the *aliases*."""
        spec, own = pod.spec, pod.container
        rights, user = own["securityContext"], spec["securityContext"]
        limits = own.get("resources", {}).get("limits", {})
        tmpfs = {
            path: f"size={size(volume['emptyDir']['sizeLimit'])},mode=1777"
            for path, volume in pod.mounts.items()
            if "emptyDir" in volume
        }
        container: Container = self._client.containers.create(
            self._image,
            own["args"],
            name=f"{self.name}-{name}",
            hostname=name,
            environment=pod.environment,
            user=f"{user['runAsUser']}:{user['runAsGroup']}",
            group_add=[str(user["fsGroup"])],
            read_only=rights["readOnlyRootFilesystem"],
            cap_drop=rights["capabilities"]["drop"],
            security_opt=[] if rights["allowPrivilegeEscalation"] else ["no-new-privileges:true"],
            mem_limit=size(limits["memory"]) if "memory" in limits else None,
            nano_cpus=int(limits["cpu"]) * 10**9 if "cpu" in limits else None,
            tmpfs=tmpfs,
            volumes=dict(self._volumes(pod)),
            healthcheck={"test": ["NONE"]},
            init=False,
            labels=self._labels,
            network=self.name,
            networking_config={self.name: self._client.api.create_endpoint_config(aliases=[name, *aliases])},
        )
        container.start()
        return container

    def _volumes(self, pod: Pod) -> Iterator[tuple[str, dict[str, str]]]:
        group = pod.spec["securityContext"]["fsGroup"]
        for path, volume in pod.mounts.items():
            if "secret" in volume:
                mode = volume["secret"]["defaultMode"]
                made = self._volume(secret_volume(pod.files(volume), mode, group), group)
                yield made, {"bind": path, "mode": "ro"}
            elif "claim" in volume:
                if volume["claim"] not in self._claims:
                    self._claims[volume["claim"]] = self._volume(claim_volume(group), group)
                yield self._claims[volume["claim"]], {"bind": path, "mode": "rw"}

    def _volume(self, content: bytes, group: int) -> str:
        """Return the name of a new volume that the *group* may write to, with the *content* of a tar file."""
        volume = self._client.volumes.create(labels=self._labels)
        filled = self._client.containers.create(
            self._image,
            ["-c", f"chgrp {group} /filled && chmod 2775 /filled"],
            entrypoint="sh",
            user="0",
            network_disabled=True,
            volumes={volume.name: {"bind": "/filled", "mode": "rw"}},
        )
        try:
            assert filled.put_archive("/filled", content)
            filled.start()
            assert filled.wait(timeout=90)["StatusCode"] == 0, filled.logs()
        finally:
            filled.remove(force=True)
        return str(volume.name)

    def wait_ready(self, pod: Pod, container: Container) -> None:
        """Wait as the kubelet does: for the end of the start, then until it is ready; it must be alive."""
        for name in ("startup", "readiness", "liveness"):
            probe = pod.container[f"{name}Probe"]
            passes = functools.partial(self._passes, pod, container, probe)
            wait_for(passes, 90.0, f"{name} of {container.name}")

    def _passes(self, pod: Pod, container: Container, probe: Manifest) -> bool:
        container.reload()
        assert container.status == "running", container.logs().decode()
        address = container.attrs["NetworkSettings"]["Networks"][self.name]["IPAddress"]
        url = f"http://{address}:{pod.ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
        return get(container, url, probe["timeoutSeconds"])[0] == 200


def get(container: Container, url: str, seconds: float = 30) -> tuple[int, str]:
    """Return the status and the text of the answer to a GET from inside a container; 0 if there is none."""
    code, said = run_in(container, "python", "-c", _GET, url, str(seconds))
    status, _, body = said.partition(" ")
    return (0, said) if code else (int(status), body)


def run_in(container: Container, *command: str) -> tuple[int, str]:
    """Run a command in a container, as `kubectl exec`; return its exit code and output, or its errors."""
    done: Any = container.exec_run(list(command), demux=True)
    said = done.output[1 if done.exit_code else 0] or b""
    return int(done.exit_code), said.decode()


def ended(container: Container, grace: float) -> tuple[int, float]:
    """Send SIGTERM, and SIGKILL after *grace*, as Kubernetes does; return the exit code and the seconds."""
    begun = time.monotonic()
    container.stop(timeout=int(grace))
    return int(container.wait(timeout=60)["StatusCode"]), time.monotonic() - begun


def secret_volume(files: dict[str, bytes], mode: int, group: int) -> bytes:
    """Return a volume as the kubelet makes it of a Secret: links to files of root and the pod's group."""
    written = "..2026_11_29"
    folders = sorted({name.rpartition("/")[0] for name in files} - {""})
    entries: list[tuple[str, Any]] = [("..data", written), (written, None)]
    entries += [(f"{written}/{folder}", None) for folder in folders]
    entries += [(f"{written}/{name}", content) for name, content in files.items()]
    entries += [(top, f"..data/{top}") for top in sorted({name.partition("/")[0] for name in files})]
    return _tar(entries, mode, group)


def claim_volume(group: int) -> bytes:
    """Return a new claim, with the folder that mkfs leaves in it."""
    return _tar([("lost+found", None)], 0o660, group)


def _tar(entries: list[tuple[str, Any]], mode: int, group: int) -> bytes:
    """Return a tar file; an entry's content is None for a folder, and text for a link."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.gid, entry.mode = group, mode
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o2775
            elif isinstance(content, str):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content, 0o777
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return written.getvalue()


@contextmanager
def pod_containers(client: docker.DockerClient, image: str, name: str) -> Iterator[PodContainers]:
    """Yield a place for pods; everything in it is removed at the end, and also if this process is killed."""
    reaper = subprocess.Popen(
        ["sh", "-c", _REAP, "sh", f"label={_LABEL}={name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield PodContainers(client, image, name)
    finally:
        reaper.communicate(timeout=250)
