"""The settings of the NATS servers in `deploy/nats`, and those of Prometheus for two managers."""

from __future__ import annotations

import json
import re

import yaml

from svc.journal_address import StreamAddress, parse_journal
from svc.server.journal.jetstream.stream_form import SETTINGS_OF_ALL, permissions
from tests.support.svc import ROOT

DEPLOY = ROOT / "deploy"
SERVERS = (DEPLOY / "nats/nats.conf").read_text()


def journal() -> StreamAddress:
    named = re.search(r"SVC_JOURNAL: (\S+)", (DEPLOY / "compose.ha.yaml").read_text())
    assert named is not None
    address = parse_journal(named[1])
    assert isinstance(address, StreamAddress)
    return address


def test_the_managers_have_the_least_permissions_on_the_journal_of_compose():
    assert json.loads((DEPLOY / "nats/permissions.json").read_text()) == permissions(journal().name)


def test_each_write_is_synced_and_the_managers_may_ask_whether_it_is():
    assert re.findall(r"^\s*sync_interval: (\S+)$", SERVERS, re.MULTILINE) == ["always"]
    assert (
        len(re.findall(rf'service: (?:{{account: SYS, subject: )?"{re.escape(SETTINGS_OF_ALL)}"', SERVERS))
        == 2
    )


def test_nobody_connects_without_a_certificate_neither_as_a_manager_nor_as_a_server():
    clients, servers = re.findall(r"^\s*tls {(.*?)}", SERVERS, re.MULTILINE | re.DOTALL)
    assert "verify_and_map: true" in clients
    assert "verify_cert_and_check_known_urls: true" in servers
    assert journal().tls


def test_the_settings_of_prometheus_for_two_managers_differ_in_addresses_alone():
    one, two = (
        yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for name in ("prometheus.yml", "prometheus.ha.yml")
    )
    managers, workers, _ = two["scrape_configs"]
    (targets,) = managers["static_configs"]
    assert targets == {"targets": ["manager-1:9100", "manager-2:9100"]}
    listed = [each["url"] for each in workers["http_sd_configs"]]
    assert listed == [f"http://{target}/sd/workers" for target in targets["targets"]]
    for place, name in ((0, "static_configs"), (1, "http_sd_configs")):
        two["scrape_configs"][place][name] = one["scrape_configs"][place][name]
    assert two == one
