"""The pods of `deploy/k8s` as containers: they start, serve, are probed and stop as their manifests say."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml
from docker.models.containers import Container

from svc.declarations import parse_seconds
from tests.support.docker import wait_for
from tests.support.kubernetes import Bundle, Pod, copy_with_keys
from tests.support.pod_containers import PodContainers, ended, get, pod_containers, run_in
from tests.support.readme import blocks
from tests.support.svc import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]
WORKER = "svc-worker-0"


def scale_url(bundle: Bundle) -> str:
    (trigger,) = bundle.named("ScaledObject", "svc-worker")["spec"]["triggers"]
    return str(trigger["metadata"]["url"])


class Site(NamedTuple):
    """The running pods."""

    pods: PodContainers
    bundle: Bundle
    manager: Container
    worker: Container

    def svc(self, *arguments: str) -> str:
        """Run `svc` in the manager's pod, as `kubectl exec` does."""
        code, said = run_in(self.manager, "timeout", "120", "svc", *arguments)
        assert code == 0, said
        return said

    @property
    def scale_url(self) -> str:
        """The address that KEDA asks."""
        return scale_url(self.bundle)

    def job(self, job: str) -> dict[str, Any]:
        """Return the view of a job."""
        shown: dict[str, Any] = json.loads(self.svc("jobs", "show", job, "--json"))
        return shown


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """The overlay `autoscaled` over the base, whose tasks the plain image has, and the pod of the page."""
    k8s = copy_with_keys(tmp_path_factory.mktemp("deploy"))
    folder = k8s / "overlays" / "autoscaled"
    overlay: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    overlay["resources"] = ["../../base", "pod.yaml"]
    overlay["components"] = ["../../components/keys", *overlay["components"]]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    _, pod = blocks((ROOT / "docs/deploy/kubernetes.md").read_text(), "yaml")
    (folder / "pod.yaml").write_text(pod)
    return Bundle.of(folder)


@pytest.fixture(scope="module")
def site(client, image, bundle) -> Iterator[Site]:
    url = urlsplit(scale_url(bundle))
    with pod_containers(client, image, f"svc-k8s-{os.getpid()}-{secrets.token_hex(2)}") as pods:
        manager = pods.run(
            bundle.manager, "svc-manager-0", "svc-manager", str(url.hostname), "svc.example.org"
        )
        # It starts beside the manager, as in a cluster, and waits for it.
        worker = pods.run(bundle.worker, WORKER)
        pods.wait_ready(bundle.manager, manager)
        pods.wait_ready(bundle.worker, worker)
        yield Site(pods, bundle, manager, worker)


def test_the_pod_of_the_page_submits_a_job_and_prints_its_result(site):
    manifest = site.bundle.named("Pod", "submit-one")
    owner = {"metadata": manifest["metadata"], "spec": {"template": manifest}}
    submitter = site.pods.run(Pod(owner, site.bundle), "submit-one")
    assert submitter.wait(timeout=120)["StatusCode"] == 0, submitter.logs().decode()
    assert submitter.logs(stderr=False).decode().split() == ["42"]


def test_a_worker_is_known_by_the_name_of_its_pod(site):
    (worker,) = json.loads(site.svc("workers", "--json"))
    assert worker["name"] == worker["host"] == WORKER
    assert worker["consumers"] == int(site.bundle.worker.environment["SVC_CONSUMERS"])


def test_keda_gets_its_figure_by_the_address_in_the_manifest_and_no_other_name_is_answered(site):
    (trigger,) = site.bundle.named("ScaledObject", "svc-worker")["spec"]["triggers"]
    status, answer = get(site.worker, site.scale_url)
    assert status == 200
    assert json.loads(answer)[trigger["metadata"]["valueLocation"]] >= 0
    assert get(site.worker, "http://svc.example.org:9100/api/v1/scale")[0] == 421


def test_a_worker_that_is_taken_away_ends_its_job_and_leaves_within_its_grace(site):
    # Long enough to be seen while it runs, on a slow host too, and shorter than the grace.
    job = site.svc("submit", "sleep", "10").split()[0]
    wait_for(lambda: json.loads(get(site.worker, site.scale_url)[1])["leased"], 60, "the job runs")
    code, seconds = ended(site.worker, site.bundle.worker.spec["terminationGracePeriodSeconds"])
    state = site.job(job)["state"]
    site.worker.start()
    site.pods.wait_ready(site.bundle.worker, site.worker)
    assert (code, state) == (0, "succeeded"), site.worker.logs().decode()
    assert seconds < parse_seconds(site.bundle.worker.environment["SVC_GRACE"])


def test_the_next_manager_has_the_journal_and_the_worker_comes_back_to_it(site):
    job = site.svc("submit", "multiply", "6", "7").split()[0]
    wait_for(lambda: site.job(job)["state"] == "succeeded", 60, "the job ends")
    code, _ = ended(site.manager, site.bundle.manager.spec["terminationGracePeriodSeconds"])
    site.manager.start()
    site.pods.wait_ready(site.bundle.manager, site.manager)
    assert code == 0, site.manager.logs().decode()
    assert site.svc("results", job).split() == [job, "42"]
    assert site.svc("submit", "multiply", "2", "4", "--wait").split() == ["8"]
