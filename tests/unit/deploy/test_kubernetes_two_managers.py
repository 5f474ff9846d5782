"""The overlay of `deploy/k8s` with two managers: names, ports and files that lead to one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc.addresses import parse_address
from svc.declarations import declared
from svc.journal_address import StreamAddress, parse_journal
from svc.settings import ManagerSettings
from tests.support.kubernetes import VERSIONS, Bundle, Pod, complaints
from tests.support.readme import blocks
from tests.support.svc import ROOT

PAGE = ROOT / "docs/deploy/high-availability.md"


@pytest.fixture(scope="module")
def bundle(copied: Path) -> Bundle:
    return Bundle.of(copied / "overlays" / "ha")


@pytest.fixture(scope="module")
def pods(bundle: Bundle) -> list[str]:
    """The names of the managers' pods, as their headless Service gives them."""
    owner = bundle.named("StatefulSet", "svc-manager")
    name, service = owner["metadata"]["name"], owner["spec"]["serviceName"]
    return [f"{name}-{number}.{service}" for number in range(owner["spec"]["replicas"])]


def managed(bundle: Bundle) -> Pod:
    return bundle.manager


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_has_the_form_that_kubernetes_wants(bundle, version, tmp_path):
    assert complaints(bundle.manifests, tmp_path, version) == []


def test_there_are_two_managers_on_different_nodes(bundle, pods):
    assert len(pods) == 2
    (spread,) = managed(bundle).spec["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert bundle.selected(spread["labelSelector"]["matchLabels"]) == [bundle.manager]


def test_no_pod_waits_for_a_standby_to_be_ready(bundle):
    """Else the second one never starts, an update never ends, and no node of a leader can be emptied."""
    spec = bundle.named("StatefulSet", "svc-manager")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert set(bundle.kind("PodDisruptionBudget")) == {"svc-worker"}


def test_a_manager_has_settings_that_it_takes_and_names_its_own_pod(bundle, pods):
    settings = declared(ManagerSettings)
    known = {f"SVC_{name.upper()}": each for name, each in settings.items() if each.variable}
    told = {name: value for name, value in managed(bundle).environment.items() if name.startswith("SVC_")}
    assert set(told) <= set(known)
    for name, value in told.items():
        known[name].read(value.replace("$(POD_NAME)", "svc-manager-0"))
    assert told["SVC_ADVERTISE"].replace("$(POD_NAME)", "svc-manager-0") == f"{pods[0]}:7077"
    order = [each["name"] for each in managed(bundle).container["env"]]
    assert order.index("POD_NAME") < order.index("SVC_ADVERTISE"), "or Kubernetes does not fill it in"


def test_workers_know_both_pods_by_names_that_the_page_has_in_the_certificate(bundle, pods):
    named = [parse_address(each, 0) for each in bundle.worker.environment["SVC_MANAGER"].split(",")]
    assert [(each.host, each.port) for each in named] == [(pod, 7077) for pod in pods]
    (made,) = (
        line for line in PAGE.read_text().splitlines() if line.startswith("sh deploy/keys.sh deploy/k8s")
    )
    names = made.split()[3].split(",")
    assert set(pods) <= set(names)
    assert {"svc-manager", f"svc-manager.{bundle.namespace}"} <= set(names)


def test_the_service_leads_to_the_leader_and_a_standby_can_be_dialled_by_its_name(bundle):
    services = bundle.kind("Service")
    assert services["svc-manager"]["spec"]["publishNotReadyAddresses"] is False
    assert services["svc-manager-pods"]["spec"]["publishNotReadyAddresses"] is True
    assert managed(bundle).container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in ("livenessProbe", "startupProbe"):
        assert managed(bundle).container[probe]["httpGet"]["path"] == "/livez"


def test_every_file_that_a_manager_names_is_in_a_volume(bundle):
    told, mounts = managed(bundle).environment, managed(bundle).mounts
    assert mounts["/run/journal"]["secret"] == {"secretName": "svc-journal-keys", "defaultMode": 0o440}
    assert {Path(told[f"SVC_NATS_TLS_{part}"]).parent for part in ("CERT", "KEY", "CA")} == {
        Path("/run/journal")
    }
    assert mounts[str(Path(told["SVC_MIRROR"]).parent)] == {"claim": "mirror"}
    assert mounts[str(Path(told["SVC_JOURNAL_MARKER"]).parent)] == {"claim": "journal-marker"}
    assert f"kubectl -n {bundle.namespace} create secret generic svc-journal-keys" in PAGE.read_text()


def test_managers_dial_each_other_the_servers_of_their_journal_and_the_dns_alone(bundle):
    journal = parse_journal(managed(bundle).environment["SVC_JOURNAL"])
    assert isinstance(journal, StreamAddress)
    assert journal.tls
    ((host, port),) = ((each.host, each.port) for each in journal.servers)
    _, namespace, *_ = host.split(".")
    policies = [
        each["spec"]
        for each in bundle.kind("NetworkPolicy").values()
        if bundle.manager in bundle.selected(each["spec"]["podSelector"]["matchLabels"])
    ]
    rules = [rule for spec in policies for rule in spec.get("egress", ())]
    allowed = {}
    for rule in rules:
        (peer,) = rule["to"]
        where = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        if where is None:
            assert bundle.selected(peer["podSelector"]["matchLabels"]) == [bundle.manager]
        assert peer["podSelector"]["matchLabels"]
        allowed[where] = {each["port"] for each in rule["ports"]}
    assert allowed == {None: {"jobs"}, namespace: {port}, "kube-system": {53}}


def test_the_commands_of_the_page_make_the_files_of_its_secrets():
    (made,) = (block for block in blocks(PAGE.read_text()) if "svc-journal-keys" in block)
    assert "nats" in made.split("deploy/keys.sh")[1].splitlines()[0]
