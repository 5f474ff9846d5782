"""The overlays of `deploy/k8s`, and what the page of Kubernetes shows of them."""

from __future__ import annotations

import shutil

import yaml

from svc.declarations import declared, parse_seconds
from svc.settings import RemoteSettings
from svc.worker import supervisor
from tests.support.kubernetes import K8S, NAMES, SPARE_SECONDS, VERSIONS, Bundle, complaints, kustomize
from tests.support.readme import blocks
from tests.support.svc import ROOT


def test_the_example_changes_images_tasks_replicas_grace_and_the_size_of_the_journal(bundles):
    bundle = bundles["example"]
    assert bundle.namespace == "jobs"
    assert bundle.manager.container["image"] == "images.example/svc:0.1.0"
    assert bundle.worker.container["image"] == "images.example/mytasks:1"
    assert bundle.worker.environment["SVC_TASKS"] == "mytasks"
    assert bundle.worker.environment["SVC_GRACE"] == "2m"
    journal = bundle.named("StatefulSet", "svc-manager")["spec"]["volumeClaimTemplates"][0]
    assert journal["spec"]["resources"]["requests"]["storage"] == "50Gi"


def test_the_base_alone_has_no_keys_and_fits_together():
    base = Bundle(list(yaml.safe_load_all(kustomize(K8S / "base"))))
    assert not base.kind("Secret")
    grace = parse_seconds(base.worker.environment["SVC_GRACE"])
    needed = grace + supervisor._LAST_REPORTS_SECONDS + SPARE_SECONDS
    assert base.worker.spec["terminationGracePeriodSeconds"] >= needed


def test_no_manifest_lies_unused():
    made = {file.parent: yaml.safe_load(file.read_text()) for file in K8S.rglob("kustomization.yaml")}
    listed = {
        (folder / each).resolve()
        for folder, content in made.items()
        for each in (
            *content.get("resources", ()),
            *(one.get("path", "") for one in content.get("patches", ())),
        )
    }
    there = {each for each in K8S.rglob("*.yaml") if each.name != "kustomization.yaml"}
    assert there <= listed


# --- the page -----------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "deploy" / "kubernetes.md"


def test_the_overlay_in_the_page_is_the_example():
    example = yaml.safe_load((K8S / "overlays/example/kustomization.yaml").read_text())
    shown, _ = map(yaml.safe_load, blocks(PAGE.read_text(), "yaml"))
    assert {name: example[name] for name in shown} == shown


def test_the_pod_in_the_page_submits_from_an_overlay(copied, tmp_path):
    folder = shutil.copytree(copied, tmp_path / "k8s") / "overlays" / "example"
    _, shown = blocks(PAGE.read_text(), "yaml")
    (folder / "pod.yaml").write_text(shown)
    overlay = yaml.safe_load((folder / "kustomization.yaml").read_text())
    overlay["resources"].append("pod.yaml")
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    bundle = Bundle.of(folder)
    pod = bundle.named("Pod", "submit-one")
    assert complaints([pod], tmp_path, VERSIONS[-1]) == []
    assert pod["metadata"]["labels"] == {"svc-client": "true"}
    (container,) = pod["spec"]["containers"]
    assert container["image"] == bundle.manager.container["image"]
    known = {f"SVC_{name.upper()}" for name in declared(RemoteSettings)}
    assert {each["name"] for each in container["env"]} <= known
    (keys,) = (each["secret"] for each in pod["spec"]["volumes"] if "secret" in each)
    assert "authkey" in bundle.secret(keys["secretName"])
    assert pod["spec"]["enableServiceLinks"] is False


def test_the_names_for_the_certificate_in_the_page_are_those_that_are_tested():
    assert f"sh deploy/keys.sh deploy/k8s/components/keys {NAMES}\n" in PAGE.read_text()
