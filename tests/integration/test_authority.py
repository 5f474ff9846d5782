"""The certificate authority that `svc auth` makes, and its certificates."""

from __future__ import annotations

import pytest

from svc.cli.certificates import make_authority, renew_certificates
from svc.errors import ConfigurationError, Conflict
from tests.support.certificates import NAMES, dial, files
from tests.support.manager import running_manager


def test_an_authority_is_made_once_and_its_keys_are_private(certificates):
    for key in certificates.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict):
        make_authority(certificates, NAMES)


def test_renewed_certificates_fit_the_same_keys_and_the_new_names(tmp_path):
    made = make_authority(tmp_path, ("localhost",), ("worker", "cli"))
    assert {file.name for file in made} == {
        f"{owner}.{kind}" for owner in ("ca", "manager", "worker", "cli") for kind in ("pem", "key")
    }
    before = {file: file.read_bytes() for file in made}
    renewed = renew_certificates(tmp_path, NAMES)
    assert {file.name for file in renewed} == {"manager.pem", "worker.pem", "cli.pem"}
    assert {file for file in made if file.read_bytes() != before[file]} == set(renewed)
    with (
        running_manager(tls=files(tmp_path, "manager")) as running,
        dial(running, files(tmp_path, "worker")) as broker,
    ):
        assert broker.connect().version


@pytest.mark.parametrize("client", ["ca", "manager", "../up", ""])
def test_a_clients_name_is_no_path_and_not_taken(tmp_path, client):
    with pytest.raises(ConfigurationError, match="is no name for a client"):
        make_authority(tmp_path, NAMES, (client,))


def test_only_an_authority_can_renew(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no ca\.key"):
        renew_certificates(tmp_path, NAMES)
