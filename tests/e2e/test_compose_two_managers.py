"""The promises of `deploy/compose.ha.yaml`, checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svc.addresses import parse_address
from svc.declarations import declared
from svc.journal_address import StreamAddress, parse_journal
from svc.server.journal.jetstream.stream_form import RELEASE_MIN, release_of
from svc.settings import ManagerSettings
from tests.support.docker import TWO_MANAGERS, Project

pytestmark = pytest.mark.docker
MANAGERS, SERVERS = ("manager-1", "manager-2"), ("nats-1", "nats-2", "nats-3")


@pytest.fixture(scope="module")
def model(client):
    """The files as a fresh clone has them, with every profile."""
    return Project("svc-model", files=TWO_MANAGERS).config()


@pytest.fixture(scope="module")
def services(model):
    return model["services"]


def test_two_managers_and_three_servers_take_the_place_of_the_one_manager(services):
    assert set(services) == {"keys", *MANAGERS, *SERVERS, "worker", "cli", "prometheus", "grafana"}


def test_every_service_runs_without_rights_and_within_bounds(services):
    for name, service in services.items():
        assert service["read_only"], name
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name


def test_the_managers_differ_in_name_ports_and_mirror_alone(services):
    one, two = (json.dumps(services[name], sort_keys=True) for name in MANAGERS)
    for ours, others in (("manager-1", "manager-2"), ('"7077", "target"', '"7078", "target"')):
        one = one.replace(ours, others)
    published = [[port["published"] for port in services[name]["ports"]] for name in MANAGERS]
    assert published == [["7077", "9100"], ["7078", "9102"]]
    told = [json.loads(each) for each in (one, two)]
    for each in told:
        del each["ports"]
    assert told[0] == told[1]


def test_a_manager_has_settings_that_it_takes_and_says_where_it_is_reached(services):
    settings = declared(ManagerSettings)
    known = {f"SVC_{name.upper()}": each for name, each in settings.items() if each.variable}
    for name in MANAGERS:
        told = services[name]["environment"]
        assert set(told) <= set(known)
        for variable, value in told.items():
            if value is not None:
                known[variable].read(value)
        assert told["SVC_ADVERTISE"] == f"{name}:7077"
        journal = parse_journal(told["SVC_JOURNAL"])
        assert isinstance(journal, StreamAddress)
        assert journal.tls
        assert [server.host for server in journal.servers] == list(SERVERS)


def test_all_who_dial_know_both_managers_by_names_in_their_certificate(services):
    for name in ("worker", "cli"):
        named = [parse_address(each, 0) for each in services[name]["environment"]["SVC_MANAGER"].split(",")]
        assert [(each.host, each.port) for each in named] == [(manager, 7077) for manager in MANAGERS]
    _, names, servers = services["keys"]["command"]
    assert names.split(",") == list(MANAGERS)
    assert servers.split(",") == list(SERVERS)


def test_further_names_of_this_host_go_into_the_certificate_too(client):
    named = Project("svc-model", {"SVC_TLS_NAMES": "queue-host,10.0.0.7"}, TWO_MANAGERS).config()
    assert named["services"]["keys"]["command"][1] == "manager-1,manager-2,queue-host,10.0.0.7"


def test_a_standby_is_healthy_and_whoever_ends_comes_back(services):
    for name in MANAGERS:
        assert services[name]["healthcheck"]["test"] == ["CMD", "svc", "health", "--live"]
    for name in (*MANAGERS, *SERVERS):
        assert services[name]["restart"] == "unless-stopped"


def test_servers_are_stopped_by_lame_duck_mode_with_time_for_it(services):
    for name in SERVERS:
        assert services[name]["stop_signal"] == "SIGUSR2"
        assert services[name]["stop_grace_period"] == "45s"


def test_only_managers_reach_the_servers(model, services):
    assert model["networks"]["journal"]["internal"] is True
    inside = {name for name, service in services.items() if "journal" in service.get("networks", {})}
    assert inside == {*MANAGERS, *SERVERS}
    for name in SERVERS:
        assert set(services[name]["networks"]) == {"journal"}
        assert not services[name].get("ports")


def test_each_server_has_a_disk_and_a_name_of_its_own_and_the_shared_settings(services):
    for name in SERVERS:
        mounts = {volume["target"]: volume for volume in services[name]["volumes"]}
        assert mounts["/var/lib/nats"]["source"] == services[name]["environment"]["NATS_NAME"] == name
        assert mounts["/run/svc"]["source"] == "nats-keys"
        settings = Path(mounts["/etc/nats"]["source"])
        assert (settings / "nats.conf").is_file()
        for place in ("/etc/nats", "/run/svc"):
            assert mounts[place]["read_only"], place


def test_the_servers_are_of_a_release_that_a_manager_takes(services):
    for name in SERVERS:
        image, _, tag = services[name]["image"].partition(":")
        assert image == "nats"
        assert release_of(tag)[:2] >= RELEASE_MIN[:2]
