"""`deploy/keys.sh`: the keys and certificates of each service, and their renewal."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from svc.cli import certificates
from tests.support.processes import ROOT

OWNERS = ("manager", "worker", "cli")
COMMON = {"authkey", "cert.pem", "key.pem", "ca.pem"}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A PATH with this tree's `svc`."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "svc").write_text(f'#!/bin/sh\nexec {sys.executable} -m svc "$@"\n')
    (folder / "svc").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def run(folder: Path, path: str, *names: str) -> None:
    command = ["sh", str(ROOT / "deploy/keys.sh"), str(folder), *names]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def empty(folder: Path) -> Path:
    for name in ("authority", *OWNERS):
        (folder / name).mkdir()
    return folder


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in found}


@pytest.fixture(scope="module")
def made(path, tmp_path_factory) -> Path:
    folder = empty(tmp_path_factory.mktemp("keys"))
    run(folder, path)
    return folder


def test_each_service_gets_its_own_and_nothing_else(made):
    files = {
        owner: {str(each.relative_to(made / owner)) for each in (made / owner).rglob("*.*")}
        | {each.name for each in (made / owner).glob("authkey")}
        for owner in OWNERS
    }
    assert files["worker"] == files["cli"] == COMMON
    assert files["manager"] == COMMON | {"roles/submit.key", "roles/work.key", "roles/read.key"}


def test_a_worker_has_the_key_for_work_and_no_private_key_is_in_two_services(made):
    roles = {key.stem: key.read_bytes() for key in (made / "authority/roles").glob("*.key")}
    assert len(set(roles.values())) == 5
    assert (made / "worker/authkey").read_bytes() == roles["work"]
    assert (made / "manager/authkey").read_bytes() == (made / "cli/authkey").read_bytes() == roles["admin"]
    private = [(made / owner / "key.pem").read_bytes() for owner in OWNERS]
    assert len({*private, (made / "authority/tls/ca.key").read_bytes()}) == 4
    for owner in OWNERS:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(made / owner / "cert.pem", made / owner / "key.pem")


def test_what_is_handed_out_is_for_its_owner_to_read(made):
    for owner in OWNERS:
        assert {each.stat().st_mode & 0o777 for each in (made / owner).rglob("*") if each.is_file()} == {
            0o400
        }


def test_a_second_run_changes_nothing(made, path):
    before = contents(made)
    run(made, path)
    assert contents(made) == before


def test_a_run_that_was_killed_is_made_good_by_the_next(path, tmp_path):
    folder = empty(tmp_path)
    (folder / "authority/draft").mkdir()
    (folder / "authority/draft/submit.key").write_text("half of it")
    (folder / "worker/.new").write_text("")
    (folder / "worker/.new").chmod(0o400)
    run(folder, path)
    assert not (folder / "authority/draft").exists()
    assert {each.name for each in (folder / "worker").iterdir()} == COMMON


def test_certificates_that_will_end_or_lack_a_name_are_signed_again_for_their_keys(made, path, monkeypatch):
    before = contents(made)
    monkeypatch.setattr(certificates, "CERTIFICATE_DAYS", 59)
    certificates.renew_certificates(made / "authority/tls", ("manager",))
    run(made, path, "queue-host,10.0.0.7")

    after = contents(made)
    changed = {name for name in after if after[name][0] != before[name][0]}
    handed = {f"{owner}/cert.pem" for owner in OWNERS}
    assert changed == handed | {f"authority/tls/{owner}.pem" for owner in OWNERS} | {"authority/tls/names"}
    said = ["openssl", "x509", "-in", str(made / "manager/cert.pem"), "-noout", "-ext", "subjectAltName"]
    told = subprocess.run(said, capture_output=True, text=True, check=True).stdout
    assert "DNS:queue-host, IP Address:10.0.0.7" in told
    still_good = ["openssl", "x509", "-in", str(made / "cli/cert.pem"), "-noout", "-checkend", "5184000"]
    assert subprocess.run(still_good, capture_output=True, check=False).returncode == 0


def test_nats_servers_have_an_authority_of_their_own_and_only_the_manager_a_certificate_of_it(path, tmp_path):
    folder = empty(tmp_path)
    run(folder, path, "m1", "nats-1,nats-2")
    authority = (folder / "authority/nats/ca.pem").read_bytes()
    assert authority != (folder / "authority/tls/ca.pem").read_bytes()
    for place in ("nats", "manager/journal"):
        assert {each.name for each in (folder / place).iterdir()} == {"cert.pem", "key.pem", "ca.pem"}
        assert (folder / place / "ca.pem").read_bytes() == authority
    for owner in ("worker", "cli"):
        assert authority not in [each.read_bytes() for each in (folder / owner).iterdir()]
    shown = ["openssl", "x509", "-noout", "-text", "-in"]
    server, manager = (
        subprocess.run([*shown, str(folder / place / "cert.pem")], capture_output=True, text=True, check=True)
        for place in ("nats", "manager/journal")
    )
    assert "DNS:nats-1, DNS:nats-2, DNS:localhost" in server.stdout
    assert re.search(r"Subject: CN ?= ?svc journal$", manager.stdout, re.MULTILINE)
    before = contents(folder)
    run(folder, path, "m1", "nats-1,nats-2")
    assert contents(folder) == before
