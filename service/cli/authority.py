"""`svc auth ca`: a small certificate authority, made with the `openssl` command."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import write
from service.errors import ConfigurationError, Conflict
from service.settings import parse_names

#: Days that certificates are valid, the CA's own and those that it signs.
CA_DAYS = 3650
CERTIFICATE_DAYS = 825
_NAMES = "manager,localhost,127.0.0.1,::1"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_IDENTITY = "subjectKeyIdentifier=hash\n"
_LEAF = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    f"{_IDENTITY}authorityKeyIdentifier=keyid\n"
)
_FILES = ("ca.pem", "ca.key", "manager.pem", "manager.key", "client.pem", "client.key")


def ca(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to fill; made if missing.")],
    names: Annotated[
        str,
        typer.Option(
            "--names",
            metavar="NAME[,…]",
            help="Host names and IP addresses that clients reach the manager by.",
        ),
    ] = _NAMES,
) -> int:
    """Make a small CA, a certificate for the manager and one for its workers and clients.

    The manager takes manager.pem, manager.key and ca.pem; all others client.pem, client.key and ca.pem.
    Keep ca.key away from all of them: who has it can make certificates. Needs the `openssl` command.
    """
    make_authority(folder, parse_names(names))
    for name in _FILES:
        write(str(folder / name))
    return 0


def make_authority(folder: Path, names: tuple[str, ...]) -> None:
    """Make the six files in *folder*; *names* are those of the manager's certificate.

    Raises:
        ConfigurationError: there is no `openssl`, or it failed.
        Conflict: one of the files exists.
    """
    if shutil.which("openssl") is None:
        raise ConfigurationError(
            "there is no `openssl` command here; install it, or run this where there is one"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _FILES:
        if (folder / name).exists():
            raise Conflict(f"{folder / name} exists and stays as it is; name another folder")
    with tempfile.TemporaryDirectory(prefix="svc-ca-") as draft:
        _make_ca(folder, Path(draft))
        # Both usages: the manager's own readiness check dials itself with this certificate.
        _sign(
            folder, Path(draft), "manager", f"extendedKeyUsage=serverAuth,clientAuth\n{_alternatives(names)}"
        )
        _sign(folder, Path(draft), "client", "extendedKeyUsage=clientAuth\n")


def _make_ca(folder: Path, draft: Path) -> None:
    usage = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
    config = draft / "ca.cnf"
    config.write_text(f"[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n{usage}{_IDENTITY}")
    target = ("-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"))
    _openssl(
        "req", "-x509", *_KEY, "-config", str(config), "-subj", "/CN=svc CA", "-days", str(CA_DAYS), *target
    )


def _sign(folder: Path, draft: Path, name: str, extensions: str) -> None:
    request, config = draft / f"{name}.csr", draft / f"{name}.cnf"
    config.write_text(f"[req]\ndistinguished_name=dn\n[dn]\n[ext]\n{_LEAF}{extensions}")
    key = ("-keyout", str(folder / f"{name}.key"), "-out", str(request))
    _openssl("req", *_KEY, "-config", str(config), "-subj", f"/CN=svc {name}", *key)
    authority = ("-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"))
    serial = ("-CAcreateserial", "-CAserial", str(draft / "serial"))
    content = ("-extfile", str(config), "-extensions", "ext", "-days", str(CERTIFICATE_DAYS))
    out = ("-in", str(request), "-out", str(folder / f"{name}.pem"))
    _openssl("x509", "-req", *authority, *serial, *content, *out)


def _alternatives(names: tuple[str, ...]) -> str:
    return "subjectAltName=" + ",".join(f"{_kind(name)}:{name}" for name in names) + "\n"


def _kind(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        umask=0o077,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConfigurationError(f"openssl {arguments[0]} failed: {said[-1] if said else done.returncode}")
