"""docs/deploy/hosts.md on four hosts: each has its own systemd and network, with a router between them.

Its commands are run as they stand there, with the units of deploy/systemd; only `ssh`, `scp` and `pip` are
played. The firewall admits what the page says, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest

from svc.addresses import parse_address
from svc.domain.limits import Limits
from tests.support.deployment import CLIENT, LEASE, MANAGER, WORKERS, Deployment, deployed, refusals
from tests.support.privileges import obtained
from tests.support.prometheus import program
from tests.support.svc import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory) -> Iterator[Deployment]:
    with ExitStack() as stack:
        found = obtained(lambda: stack.enter_context(deployed(tmp_path_factory.mktemp("hosts"))))
        found.build()
        yield found


def document(deployment: Deployment, *words: str) -> Any:
    """Return the answer to the operator as JSON."""
    code, printed, said = deployment.run(MANAGER, *words, "--json")
    assert code == 0, said
    return json.loads(printed)


def connected(deployment: Deployment) -> set[str]:
    return {each["host"] for each in document(deployment, "workers")}


def places(deployment: Deployment) -> dict[str, str]:
    """Return the host at which each job runs now."""
    hosts = {each["name"]: each["host"] for each in document(deployment, "workers")}
    leased = document(deployment, "jobs", "list", "--state", "leased")
    return {each["id"]: hosts[each["worker"]] for each in leased if each["worker"] in hosts}


def hold_on_both(deployment: Deployment, gate: str) -> dict[str, str]:
    """Submit two jobs that are held at a gate; return the job of each host once both run."""
    jobs = {deployment.submit("mytasks:held", gate) for _ in WORKERS}
    found = until(
        lambda: (at := places(deployment)) and set(at) >= jobs and at, f"a job runs on each of {WORKERS}"
    )
    return {found[job]: job for job in jobs}


def state(deployment: Deployment, host: str) -> str:
    """Return the state of the worker's unit on a host."""
    return deployment.hosts[host].property("svc-worker", "ActiveState")


def wait_until_stopped(deployment: Deployment, host: str) -> None:
    until(lambda: state(deployment, host) == "inactive", f"the worker of {host} has ended")


def result(deployment: Deployment, job: str) -> str:
    code, printed, said = deployment.run(CLIENT, "results", job)
    assert code == 0, said
    return printed.split()[-1]


def test_jobs_of_another_host_run_on_all_workers(deployment):
    for host, unit in ((MANAGER, "svc-manager"), *((worker, "svc-worker") for worker in WORKERS)):
        assert deployment.hosts[host].property(unit, "UnitFileState") == "enabled"
    jobs = hold_on_both(deployment, "both")
    assert set(jobs) == set(WORKERS)
    deployment.open("both", *WORKERS)
    assert {host: result(deployment, job) for host, job in jobs.items()} == {host: host for host in WORKERS}


def test_jobs_of_a_host_that_vanishes_run_elsewhere_within_a_lease_and_it_works_again(deployment):
    """Its cable is pulled: its worker lives on, and nobody hears of it."""
    lost, other = WORKERS
    jobs = hold_on_both(deployment, "lost")
    process = deployment.hosts[lost].property("svc-worker", "MainPID")
    deployment.network.unplug(lost)
    unplugged = time.time()
    try:
        deployment.open("lost", other)
        assert result(deployment, jobs[lost]) == other
        assert result(deployment, jobs[other]) == other
    finally:
        deployment.network.plug(lost)
    deployment.open("lost", lost)
    again = hold_on_both(deployment, "again")
    deployment.open("again", *WORKERS)
    assert result(deployment, again[lost]) == lost
    assert deployment.hosts[lost].property("svc-worker", "MainPID") == process
    assert result(deployment, jobs[lost]) == other
    shown = document(deployment, "jobs", "show", jobs[lost])
    assert (shown["interruptions"], shown["failures"], shown["crashes"]) == (1, 0, 0)
    # A lease, and the time in which a busy machine turns to the manager; the usual lease is longer.
    seconds = datetime.fromisoformat(shown["started_at"]).timestamp() - unplugged
    assert 0 < seconds < Limits().lease_seconds - 1, f"{seconds:.1f} s for a lease of {LEASE} s"


@pytest.mark.long
def test_a_job_ends_before_its_worker_is_stopped(deployment):
    host = WORKERS[0]
    jobs = hold_on_both(deployment, "stop")
    deployment.hosts[host].script("systemctl stop --no-block svc-worker")
    until(lambda: state(deployment, host) == "deactivating", "the stop")
    deployment.open("stop", *WORKERS)
    assert result(deployment, jobs[host]) == host
    wait_until_stopped(deployment, host)
    assert deployment.hosts[host].property("svc-worker", "Result") == "success"
    deployment.hosts[host].script("systemctl start svc-worker")
    until(lambda: connected(deployment) == set(WORKERS), f"{host} is back")


@pytest.mark.long
def test_a_killed_manager_comes_back_and_has_its_jobs(deployment):
    jobs = hold_on_both(deployment, "killed")
    manager = deployment.hosts[MANAGER]
    before = int(manager.property("svc-manager", "NRestarts"))
    manager.script("systemctl kill --signal KILL svc-manager")
    deployment.open("killed", *WORKERS)
    assert {host: result(deployment, job) for host, job in jobs.items()} == {host: host for host in WORKERS}
    assert int(manager.property("svc-manager", "NRestarts")) == before + 1


def test_nobody_gets_in_where_the_page_names_no_port(deployment):
    """The client's host is Prometheus, too: it finds the workers by the manager, and reaches all of them."""
    listed = deployment.hosts[CLIENT].script(
        "python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())' "
        "http://queue-host:9100/sd/workers"
    )
    targets = [target for each in json.loads(listed) for target in each["targets"]]
    expected = {deployment.network.addresses[host] for host in WORKERS}
    assert {parse_address(target).host for target in targets} == expected
    for target in (*targets, f"{MANAGER}:9100"):
        assert deployment.run(CLIENT, "health", "--live", "--http", target)[0] == 0
        other = WORKERS[1] if deployment.network.addresses[WORKERS[0]] in target else WORKERS[0]
        assert deployment.run(other, "health", "--live", "--http", target)[0] == 3


OTHER = "/root/other/tls"
REFUSED: dict[str, list[dict[str, str]]] = {
    "the key is not one of the manager's": [{"SVC_AUTHKEY_FILE": "/root/other/authkey"}],
    "the certificate is of another authority, or `ca.pem` is": [
        {"SVC_TLS_CERT": f"{OTHER}/client.pem", "SVC_TLS_KEY": f"{OTHER}/client.key"},
        {"SVC_TLS_CA": f"{OTHER}/ca.pem"},
    ],
    "the manager's certificate has not the name that is dialled": [{"SVC_MANAGER": "other-name:7077"}],
    "the role of the key does not allow it": [{}],
    "nothing answers there: a name, a firewall, a manager that is down": [
        {"SVC_MANAGER": "host-b:7077"},
        {"SVC_MANAGER": "no-such-host:7077"},
    ],
}


@pytest.fixture(scope="module")
def other_keys(deployment) -> None:
    deployment.hosts[CLIENT].script(
        "install -d -m 700 /root/other\nsvc auth generate --output /root/other/authkey\n"
        "svc auth ca /root/other/tls --names queue-host"
    )


def test_each_refusal_of_the_page_is_tried():
    assert set(refusals()) == set(REFUSED)


@pytest.mark.parametrize("cause", REFUSED)
def test_a_client_is_refused_as_the_page_says(deployment, other_keys, cause):
    message, expected = refusals()[cause]
    # A refusal comes at once, or a little later on a busy machine; only where nothing answers all is waited.
    seconds = "2" if cause.startswith("nothing answers") else "60"
    for wrong in REFUSED[cause]:
        code, _, said = deployment.run(CLIENT, "status", "--timeout", seconds, **wrong)
        assert (code, message in said) == (expected, True), said


@pytest.mark.long
@pytest.mark.parametrize(
    ("cause", "files"),
    [
        ("the key is not one of the manager's", {"/root/other/authkey": "work.key"}),
        (
            "the certificate is of another authority, or `ca.pem` is",
            {f"{OTHER}/client.pem": "tls/worker.pem", f"{OTHER}/client.key": "tls/worker.key"},
        ),
    ],
    ids=["key", "certificate"],
)
def test_a_worker_is_refused_as_the_page_says_until_its_files_are_right(deployment, other_keys, cause, files):
    host = deployment.hosts[WORKERS[1]]
    message, expected = refusals()[cause]
    host.script("cp -a /etc/svc /root/right")
    for wrong, right in files.items():
        deployment.copy(CLIENT, wrong, WORKERS[1], f"/etc/svc/{right}")
    host.script("systemctl restart svc-worker")
    until(lambda: host.property("svc-worker", "ExecMainStatus") == str(expected), "the worker is refused")
    assert message in host.log("--unit", "svc-worker")
    host.script("rm -r /etc/svc\nmv /root/right /etc/svc")
    until(lambda: connected(deployment) == set(WORKERS), "systemd has tried it again")


@pytest.mark.long
def test_a_worker_whose_tasks_are_broken_is_told_so_and_not_tried_again(deployment):
    host = deployment.hosts[WORKERS[1]]
    host.script("mv /srv/svc/mytasks.py /srv/svc/right\necho 'import missing' > /srv/svc/mytasks.py")
    restarted = host.run("systemctl", "restart", "svc-worker")
    assert restarted.returncode != 0
    assert (host.property("svc-worker", "ExecMainStatus"), host.property("svc-worker", "ActiveState")) == (
        "2",
        "failed",
    )
    assert "No module named 'missing'" in host.log("--unit", "svc-worker")
    host.script("mv /srv/svc/right /srv/svc/mytasks.py\nsystemctl start svc-worker")
    until(lambda: connected(deployment) == set(WORKERS), "it is back")


def test_a_task_may_do_little_beyond_its_own_folders(deployment):
    """The bounds of the unit hold for it, and its consumer has a control group of its own."""
    found = json.loads(deployment.submit("mytasks:bounds", "--wait"))
    assert found == {
        "writes": ["/dev/shm", "/tmp", "/var/lib/svc-worker"],
        "reads": [],
        "root": False,
        "sees others": False,
        "has a group": True,
        "chroot": False,
        "CapBnd": 0,
        "CapEff": 0,
        "NoNewPrivs": 1,
        "Seccomp": 2,
    }
    for host in WORKERS:
        assert not (deployment.hosts[host].root / "tmp/written").exists()


@pytest.mark.long
def test_a_key_is_changed_without_a_moment_in_which_a_host_is_refused(deployment):
    """Both keys are let in between the two restarts of the manager, and then the old one is not any more."""
    manager, (first, second) = deployment.hosts[MANAGER], [deployment.hosts[name] for name in WORKERS]
    folder = "/etc/systemd/system/svc-manager.service.d"
    manager.script(
        "svc auth generate --role work --output /etc/svc/keys/work.key.next\n"
        f"cat > {folder}/next.conf <<'END'\n{deployment.lines('Change keys and certificates', 'ini')}END\n"
        "systemctl daemon-reload\nsystemctl restart svc-manager"
    )
    until(lambda: connected(deployment) == set(WORKERS), "all workers have their old key")
    deployment.copy(MANAGER, "/etc/svc/keys/work.key.next", WORKERS[0], "/etc/svc/work.key")
    first.script("systemctl restart svc-worker")
    until(lambda: connected(deployment) == set(WORKERS), "both keys are let in")
    manager.script(
        f"mv /etc/svc/keys/work.key.next /etc/svc/keys/work.key\nrm {folder}/next.conf\n"
        "systemctl daemon-reload\nsystemctl restart svc-manager"
    )
    until(lambda: connected(deployment) == {WORKERS[0]}, "the old key is not let in any more")
    deployment.copy(MANAGER, "/etc/svc/keys/work.key", WORKERS[1], "/etc/svc/work.key")
    second.script("systemctl restart svc-worker")
    until(lambda: connected(deployment) == set(WORKERS), "both have the new key")


@pytest.mark.long
def test_drained_workers_stay_stopped_until_they_are_started_again(deployment):
    assert deployment.run(MANAGER, "drain")[0] == 0
    for host in WORKERS:
        wait_until_stopped(deployment, host)
        assert deployment.hosts[host].property("svc-worker", "Result") == "success"
    assert deployment.run(MANAGER, "resume")[0] == 0
    for host in WORKERS:
        deployment.hosts[host].script("systemctl start svc-worker")
    until(lambda: connected(deployment) == set(WORKERS), "both are back")


@pytest.mark.long
def test_a_manager_whose_disk_is_not_mounted_begins_no_empty_queue(deployment):
    manager = deployment.hosts[MANAGER]
    waiting = deployment.submit("mytasks:where", "--queue", "later")
    manager.script("systemctl stop svc-manager\nmv /var/lib/svc /var/lib/elsewhere")
    manager.script("systemctl start --no-block svc-manager")
    until(lambda: "was made once" in manager.log("--unit", "svc-manager"), "it says so")
    manager.script("systemctl stop svc-manager\nrmdir /var/lib/svc\nmv /var/lib/elsewhere /var/lib/svc")
    manager.script("systemctl start svc-manager")
    assert document(deployment, "jobs", "show", waiting)["state"] == "ready"
    until(lambda: connected(deployment) == set(WORKERS), "both workers are back")


@pytest.mark.long
def test_prometheus_finds_the_workers_by_the_settings_of_the_page(deployment):
    program("prometheus")
    host = deployment.hosts[CLIENT]
    settings = deployment.lines("Logs and metrics", "yaml")
    (host.root / "tmp/prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\n{settings}")
    host.script(
        "systemd-run --quiet --unit scraper prometheus --config.file=/tmp/prometheus.yml "
        "--storage.tsdb.path=/tmp/prometheus --web.listen-address=127.0.0.1:9090"
    )
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/query?query=up').read().decode())"

    def scraped() -> set[tuple[str, str]]:
        answer = host.run("python3", "-c", ask).stdout or '{"data": {"result": []}}'
        series = [each for each in json.loads(answer)["data"]["result"] if each["value"][1] == "1"]
        return {(each["metric"]["job"], each["metric"]["instance"].rpartition(":")[0]) for each in series}

    addresses = deployment.network.addresses
    expected = {("svc-manager", MANAGER), *(("svc-worker", addresses[host]) for host in WORKERS)}
    until(lambda: scraped() == expected, "Prometheus scrapes all of them")
    host.script("systemctl stop scraper")


@pytest.mark.long
def test_a_new_host_of_the_manager_goes_on_from_a_backup(deployment):
    """With the files that the page has the operator keep; workers and clients need nothing new."""
    waiting = deployment.submit("mytasks:where", "--queue", "later")
    deployment.replace_manager(deployment.operate("Back up").strip())
    until(lambda: connected(deployment) == set(WORKERS), "both workers have found the new host")
    assert document(deployment, "jobs", "show", waiting)["state"] == "ready"
    jobs = hold_on_both(deployment, "restored")
    deployment.open("restored", *WORKERS)
    assert {host: result(deployment, job) for host, job in jobs.items()} == {host: host for host in WORKERS}
