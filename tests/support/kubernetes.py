"""The manifests of deploy/k8s as `kubectl apply -k` would send them, and checks of their form; no cluster."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.svc import ROOT

#: The oldest release in which ReadWriteOncePod is for general use, and the newest that the checker knows.
VERSIONS = ("1.29", "1.37")
#: Seconds that a worker has beyond its own grace and its last reports, before Kubernetes kills it.
SPARE_SECONDS = 10
K8S = ROOT / "deploy" / "k8s"
#: The names by which pods of the example reach the manager; docs/deploy/kubernetes.md has them too.
NAMES = "svc-manager,svc-manager.jobs,svc-manager.jobs.svc,svc-manager.jobs.svc.cluster.local"

Manifest = dict[str, Any]


def kustomize(folder: Path) -> str:
    """Return the output of `kubectl kustomize`; without it skip the test, or fail it in CI."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing = "kubectl is missing: it checks deploy/k8s, without any cluster"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def copy_with_keys(folder: Path) -> Path:
    """Return a copy of deploy/k8s in *folder*, with keys made as its documentation says."""
    shutil.copytree(K8S, folder / "k8s")
    (folder / "bin").mkdir()
    svc = folder / "bin" / "svc"
    svc.write_text(f'#!/bin/sh\nexec {sys.executable} -m svc "$@"\n')
    svc.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        ["sh", str(ROOT / "deploy/keys.sh"), str(folder / "k8s/components/keys"), NAMES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder / "k8s"


def complaints(manifests: Iterable[Manifest], folder: Path, version: str) -> list[str]:
    """Return the faults in the form of manifests.

    Kinds of Kubernetes itself are checked by `kubernetes-validate --strict` for that *version* of it, others
    against the schemas of ours. A kind that neither knows is a fault.
    """
    faults, native = [], []
    for each in manifests:
        schema = K8S / "schemas" / f"{each['apiVersion'].replace('/', '-')}-{each['kind']}.json"
        if schema.exists():
            validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
            name = f"{each['kind']}/{each['metadata']['name']}"
            faults += [f"{name} {one.json_path}: {one.message}" for one in validator.iter_errors(each)]
        else:
            native.append(each)
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(native))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version", version]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60, check=False)
    passed = [line for line in done.stdout.splitlines() if line.startswith("INFO ")]
    # It only warns of a kind that it does not know, and says nothing of a file that it takes for empty.
    if len(passed) < len(native):
        faults.append(done.stdout + done.stderr)
    return faults


@dataclass(frozen=True)
class Pod:
    """A pod as its StatefulSet or Deployment makes it, with its one container."""

    owner: Manifest
    bundle: Bundle

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the pod."""
        found: dict[str, str] = self.owner["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def spec(self) -> Manifest:
        """The specification of the pod."""
        found: Manifest = self.owner["spec"]["template"]["spec"]
        return found

    @property
    def container(self) -> Manifest:
        """Its container."""
        (found,) = self.spec["containers"]
        return dict(found)

    @property
    def ports(self) -> dict[str, int]:
        """The container's ports by name."""
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @cached_property
    def environment(self) -> dict[str, str]:
        """The container's variables, as the kubelet would make them for the first pod."""
        values: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            values |= self.bundle.named("ConfigMap", source["configMapRef"]["name"])["data"]
        fields = {
            "metadata.name": f"{self.owner['metadata']['name']}-0",
            "metadata.namespace": self.bundle.namespace,
        }
        for entry in self.container["env"]:
            field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            value = fields[field] if field else entry["value"]
            for name, known in values.items():
                value = value.replace(f"$({name})", known)
            values[entry["name"]] = value
        return values

    @property
    def mounts(self) -> dict[str, Manifest]:
        """The volumes by the path at which they are mounted; a claim is `{"claim": NAME}`."""
        volumes = {each["name"]: each for each in self.spec["volumes"]}
        for claim in self.owner["spec"].get("volumeClaimTemplates", ()):
            volumes[claim["metadata"]["name"]] = {"claim": claim["metadata"]["name"]}
        return {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}

    def files(self, volume: Manifest) -> dict[str, bytes]:
        """Return the content of the files of a volume with a Secret, by path."""
        data = self.bundle.secret(volume["secret"]["secretName"])
        items = volume["secret"].get("items") or [{"key": key, "path": key} for key in data]
        return {item["path"]: data[item["key"]] for item in items}


@dataclass(frozen=True)
class Bundle:
    """The manifests that one folder makes."""

    manifests: list[Manifest]

    @classmethod
    def of(cls, folder: Path) -> Bundle:
        """Return those of *folder*."""
        return cls(list(yaml.safe_load_all(kustomize(folder))))

    @property
    def namespace(self) -> str:
        """The namespace of all of them."""
        (found,) = {each["metadata"].get("namespace", "default") for each in self.manifests}
        return str(found)

    def kind(self, kind: str) -> dict[str, Manifest]:
        """Return the manifests of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.manifests if each["kind"] == kind}

    def named(self, kind: str, name: str) -> Manifest:
        """Return one manifest."""
        return self.kind(kind)[name]

    def secret(self, name: str) -> dict[str, bytes]:
        """Return the entries of a Secret."""
        data = self.named("Secret", name)["data"]
        return {entry: base64.b64decode(coded) for entry, coded in data.items()}

    @property
    def manager(self) -> Pod:
        """The pod of the manager."""
        return Pod(self.named("StatefulSet", "svc-manager"), self)

    @property
    def worker(self) -> Pod:
        """The pod of a worker."""
        return Pod(self.named("Deployment", "svc-worker"), self)

    def selected(self, labels: Mapping[str, str]) -> list[Pod]:
        """Return the pods that have all of *labels*."""
        return [pod for pod in (self.manager, self.worker) if labels.items() <= pod.labels.items()]
