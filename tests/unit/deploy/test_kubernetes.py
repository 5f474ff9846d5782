"""`deploy/k8s`: the form of the manifests, and that every name and number in them is one of svc."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import pytest
import yaml

from svc.declarations import declared, parse_seconds
from svc.domain.replies import Totals
from svc.key_files import ROLES
from svc.setting_kinds import parse_names
from svc.settings import ManagerSettings, WorkerSettings
from svc.telemetry.http import REQUEST_SECONDS, KnownHosts, text
from svc.telemetry.routes import manager_routes, scale_figures, worker_routes
from svc.worker import supervisor
from tests.support.kubernetes import NAMES, SPARE_SECONDS, VERSIONS, Manifest, Pod, complaints
from tests.support.svc import ROOT

ROUTES = {
    "manager": manager_routes(exposition=bytes, ready=lambda: (True, ""), workers=list, scale=dict),
    "worker": worker_routes(exposition=bytes, ready=lambda: (True, "")),
}
SETTINGS = {"manager": ManagerSettings, "worker": WorkerSettings}


def verb(pod: Pod) -> str:
    (said,) = pod.container["args"]
    return str(said)


# --- form ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_has_the_form_that_kubernetes_wants(bundles, version, tmp_path):
    seen = {str(each): each for bundle in bundles.values() for each in bundle.manifests}
    assert len(seen) > 15
    assert complaints(seen.values(), tmp_path, version) == []


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("Deployment", ("spec", "template", "spec")),
        ("NetworkPolicy", ("spec",)),
        ("ScaledObject", ("spec", "triggers", 0, "metadata")),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0)),
    ],
)
def test_a_misspelt_field_is_found(bundles, kind, place, tmp_path):
    manifest = copy.deepcopy(next(iter(bundles["autoscaled"].kind(kind).values())))
    part: Any = manifest
    for step in place:
        part = part[step]
    part["targetvalue"] = "2"
    (fault,) = complaints([manifest], tmp_path, VERSIONS[-1])
    assert "targetvalue" in fault


def test_a_kind_without_a_schema_is_a_fault(tmp_path):
    unknown = {"apiVersion": "example.org/v1", "kind": "Unknown", "metadata": {"name": "x"}}
    known = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    (fault,) = complaints([known, unknown], tmp_path, VERSIONS[-1])
    assert "find schema for kind Unknown" in fault


def test_names_in_the_manifests_lead_to_one_another(bundle):
    """The validators look at each manifest alone."""
    claims = bundle.named("StatefulSet", "svc-manager")["spec"]
    services = bundle.kind("Service")
    assert services[claims["serviceName"]]["spec"]["clusterIP"] == "None"
    for service in services.values():
        (chosen,) = bundle.selected(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(chosen.ports)
        assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == chosen.ports
    for kind, name in (("StatefulSet", "svc-manager"), ("Deployment", "svc-worker")):
        spec = bundle.named(kind, name)["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    budget = bundle.named("PodDisruptionBudget", "svc-worker")
    assert bundle.selected(budget["spec"]["selector"]["matchLabels"]) == [bundle.worker]


# --- settings -----------------------------------------------------------------------------------------


def test_a_pod_has_no_variables_but_settings_of_its_command_with_values_that_it_takes(pod):
    settings = declared(SETTINGS[verb(pod)])
    known = {f"SVC_{name.upper()}": each for name, each in settings.items() if each.variable}
    told = {name: value for name, value in pod.environment.items() if name != "POD_NAMESPACE"}
    assert set(told) <= set(known)
    for name, value in told.items():
        known[name].read(value)
        assert "$(" not in value


def test_kubernetes_adds_no_variables_to_those_of_a_pod(pod):
    """For the Service `svc-manager` it would add SVC_MANAGER_PORT and more to every pod of the namespace."""
    assert pod.spec["enableServiceLinks"] is False
    assert pod.spec["automountServiceAccountToken"] is False


def test_the_ports_of_a_pod_are_those_at_which_it_listens(pod):
    told = pod.environment
    listening = {"http": told["SVC_HTTP"], **({"jobs": told["SVC_LISTEN"]} if "SVC_LISTEN" in told else {})}
    assert {name: f"0.0.0.0:{port}" for name, port in pod.ports.items()} == listening


def test_a_worker_dials_the_service_of_the_manager_by_a_name_in_its_certificate(bundle):
    host, _, port = bundle.worker.environment["SVC_MANAGER"].partition(":")
    ports = {each["name"]: each["port"] for each in bundle.named("Service", host)["spec"]["ports"]}
    assert ports["jobs"] == int(port)
    assert NAMES.split(",") == [
        host, *(f"{host}.{bundle.namespace}{rest}" for rest in ("", ".svc", ".svc.cluster.local"))
    ]  # fmt: skip


def test_a_worker_has_the_name_of_its_pod(bundle):
    (named,) = (each for each in bundle.worker.container["env"] if each["name"] == "SVC_NAME")
    assert named["valueFrom"]["fieldRef"] == {"fieldPath": "metadata.name"}


# --- files --------------------------------------------------------------------------------------------


def files_named(pod: Pod) -> Iterator[tuple[str, Path]]:
    """Yield the variables of a pod that name files and folders."""
    hints = get_type_hints(SETTINGS[verb(pod)])
    for name, value in pod.environment.items():
        if "Path" in str(hints.get(name.removeprefix("SVC_").lower(), "")):
            yield name, Path(value)


def test_every_file_that_a_pod_names_is_in_a_volume(pod):
    named = dict(files_named(pod))
    keys = {"SVC_AUTHKEY_FILE", "SVC_TLS_CERT", "SVC_TLS_KEY", "SVC_TLS_CA"}
    assert keys <= set(named)
    for name, path in named.items():
        (mount,) = (place for place in pod.mounts if path.is_relative_to(place))
        volume = pod.mounts[mount]
        if "secret" in volume:
            inside = str(path.relative_to(mount))
            assert any(file == inside or file.startswith(f"{inside}/") for file in pod.files(volume)), name
        else:
            assert volume == {
                "claim": {"SVC_JOURNAL": "journal", "SVC_JOURNAL_MARKER": "journal-marker"}[name]
            }


def test_every_claim_is_kept_and_has_one_writer(bundle):
    spec = bundle.named("StatefulSet", "svc-manager")["spec"]
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert [each["spec"]["accessModes"] for each in spec["volumeClaimTemplates"]] == [
        ["ReadWriteOncePod"]
    ] * 2


def test_keys_come_by_file_and_each_pod_has_its_own_alone(bundle, copied):
    made = {
        each.stem: each.read_bytes() for each in (copied / "components/keys/authority/roles").glob("*.key")
    }
    assert set(made) == set(ROLES)
    text = yaml.safe_dump([each for each in bundle.manifests if each["kind"] != "Secret"])
    assert "secretKeyRef" not in text
    assert "secretRef" not in text
    holders: dict[str, set[str]] = {}
    for pod in (bundle.manager, bundle.worker):
        (volume,) = (each for each in pod.mounts.values() if "secret" in each)
        assert volume["secret"]["defaultMode"] & 0o007 == 0
        holders[verb(pod)] = {role for role, key in made.items() if key in pod.files(volume).values()}
    (client,) = (name for name in bundle.kind("Secret") if name.startswith("svc-client-keys-"))
    holders["client"] = {role for role, key in made.items() if key in bundle.secret(client).values()}
    assert holders == {
        "manager": {"admin", "submit", "work", "read"},
        "worker": {"work"},
        "client": {"submit"},
    }
    assert bundle.manager.files(bundle.manager.mounts["/run/svc"])["authkey"] == made["admin"]


def test_the_names_of_role_keys_are_those_that_the_manager_looks_for(bundle):
    files = bundle.manager.files(bundle.manager.mounts["/run/svc"])
    roles = [Path(name).name for name in files if name.startswith("roles/")]
    assert sorted(roles) == sorted(f"{role}.key" for role in ("submit", "work", "read"))


def test_a_new_key_restarts_whoever_uses_it(bundle):
    """The hash at the end of its name makes the pods other pods."""
    for pod in (bundle.manager, bundle.worker):
        (volume,) = (each for each in pod.mounts.values() if "secret" in each)
        assert re.fullmatch(rf"svc-{verb(pod)}-keys-[a-z0-9]{{10}}", volume["secret"]["secretName"])


# --- rights -------------------------------------------------------------------------------------------


def test_a_pod_meets_the_restricted_standard(pod):
    spec, container = pod.spec, pod.container
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
    assert not any("hostPort" in port for port in container["ports"])
    assert {next(iter(set(volume) - {"name"})) for volume in pod.mounts.values()} <= {
        "emptyDir", "secret", "claim"
    }  # fmt: skip


def test_a_pod_runs_as_the_user_of_the_image_and_its_files_are_that_users(pod):
    dockerfile = (ROOT / "Dockerfile").read_text()
    user, group = map(int, re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE).groups())  # type: ignore[union-attr]
    context = pod.spec["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)


def test_every_pod_has_bounds(pod):
    resources = pod.container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert all("sizeLimit" in each["emptyDir"] for each in pod.mounts.values() if "emptyDir" in each)


def test_only_workers_and_clients_reach_the_jobs_and_only_prometheus_and_keda_the_metrics(bundles):
    bundle = bundles["autoscaled"]
    allowed: dict[str, list[str]] = {}
    for policy in bundle.kind("NetworkPolicy").values():
        (pod,) = bundle.selected(policy["spec"]["podSelector"]["matchLabels"])
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                assert port["port"] in pod.ports
                allowed.setdefault(f"{verb(pod)} {port['port']}", []).extend(map(sender, rule["from"]))
    assert {place: sorted(senders) for place, senders in allowed.items()} == {
        "manager jobs": ["client", "worker"],
        "manager http": ["keda", "monitoring/prometheus"],
        "worker http": ["monitoring/prometheus"],
    }
    manager = bundle.named("NetworkPolicy", "svc-manager")["spec"]
    assert "Egress" in manager["policyTypes"]
    assert not manager.get("egress")


def sender(peer: Manifest) -> str:
    """Return a short name of those whom a rule lets in; one without any selector would be everybody."""
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    pod = (
        "client"
        if labels == {"svc-client": "true"}
        else labels.get("app.kubernetes.io/component", labels.get("app.kubernetes.io/name"))
    )
    assert namespace or pod
    return "/".join(filter(None, (namespace, pod)))


# --- probes and grace ---------------------------------------------------------------------------------


def test_every_probe_asks_a_path_that_there_is_and_waits_as_long_as_an_answer_may_take(pod):
    for name, path in (("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")):
        probe = pod.container[f"{name}Probe"]
        assert probe["httpGet"] == {"path": path, "port": "http"}
        assert path in ROUTES[verb(pod)]
        assert probe["timeoutSeconds"] >= REQUEST_SECONDS
    assert text(200, "ok") == ROUTES[verb(pod)]["/livez"]()


def test_a_worker_has_its_grace_and_time_for_its_last_reports_before_it_is_killed(bundle):
    grace = parse_seconds(bundle.worker.environment["SVC_GRACE"])
    needed = grace + supervisor._LAST_REPORTS_SECONDS + SPARE_SECONDS
    assert bundle.worker.spec["terminationGracePeriodSeconds"] >= needed


def test_a_manager_has_as_much_time_to_stop_as_under_compose(bundle):
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["manager"]
    assert bundle.manager.spec["terminationGracePeriodSeconds"] == parse_seconds(compose["stop_grace_period"])


def test_an_upgrade_of_the_nodes_is_never_stopped(bundle):
    (budget,) = bundle.kind("PodDisruptionBudget").values()
    assert budget["spec"]["maxUnavailable"] == "25%"
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


# --- autoscaling and metrics --------------------------------------------------------------------------


def test_keda_asks_for_a_figure_that_the_manager_has(bundles):
    bundle = bundles["autoscaled"]
    scaled = bundle.named("ScaledObject", "svc-worker")["spec"]
    (trigger,) = scaled["triggers"]
    url = urlsplit(trigger["metadata"]["url"])
    service, namespace, rest = str(url.hostname).split(".", 2)
    assert (namespace, rest) == (bundle.namespace, "svc.cluster.local")
    ports = {each["name"]: each["port"] for each in bundle.named("Service", service)["spec"]["ports"]}
    assert url.port == ports["http"]
    assert url.path in ROUTES["manager"]
    assert KnownHosts(parse_names(bundle.manager.environment["SVC_HTTP_HOSTS"])).knows(url.netloc)
    assert trigger["metadata"]["valueLocation"] in scale_figures(Totals([]), {})


def test_the_figure_is_divided_by_the_consumers_of_one_worker(bundles):
    bundle = bundles["autoscaled"]
    (trigger,) = bundle.named("ScaledObject", "svc-worker")["spec"]["triggers"]
    assert trigger["metadata"]["targetValue"] == bundle.worker.environment["SVC_CONSUMERS"]
    assert trigger["metricType"] == "AverageValue"


def test_nothing_but_keda_says_how_many_workers_there_are(bundles):
    target = bundles["autoscaled"].named("ScaledObject", "svc-worker")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "svc-worker")
    assert "replicas" not in bundles["autoscaled"].named("Deployment", "svc-worker")["spec"]
    assert bundles["example"].named("Deployment", "svc-worker")["spec"]["replicas"] == 6


def test_series_of_the_operator_are_those_that_the_rules_ask_for(bundles):
    """Its limits for workers are those of the shipped settings of Prometheus."""
    bundle = bundles["autoscaled"]
    shipped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in shipped["scrape_configs"]}
    for name, monitor in bundle.kind("PodMonitor").items():
        (pod,) = bundle.selected(monitor["spec"]["selector"]["matchLabels"])
        assert name == f"svc-{verb(pod)}"
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in pod.ports
        assert endpoint["path"] in ROUTES[verb(pod)]
        labels = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
        assert labels["job"]["replacement"] in jobs
    worker = bundle.named("PodMonitor", "svc-worker")["spec"]
    for limit in (
        "body_size_limit",
        "sample_limit",
        "label_limit",
        "label_value_length_limit",
        "target_limit",
    ):
        assert worker[camel(limit)] == jobs["svc-worker"][limit]
    (endpoint,) = worker["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is endpoint["honorTimestamps"] is False
    ours = [
        {camel(key): value for key, value in rule.items()}
        for rule in jobs["svc-worker"]["metric_relabel_configs"]
    ]
    assert sorted(map(str, map(sorted, map(dict.items, endpoint["metricRelabelings"])))) == sorted(
        str(sorted({"action": "replace", **rule}.items())) for rule in ours
    )


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
