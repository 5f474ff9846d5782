"""`svc auth ca`: a small certificate authority, made with the `openssl` command."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from svc.cli.auth import make_folder
from svc.cli.output import write_exact
from svc.errors import ConfigurationError, Conflict
from svc.setting_kinds import parse_names

#: Days for which certificates are valid: the CA's own, and those that it signs.
CA_DAYS = 3650
CERTIFICATE_DAYS = 825
_NAMES = "manager,localhost,127.0.0.1,::1"
_ALGORITHM = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_IDENTITY = "subjectKeyIdentifier=hash\n"
_LEAF = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    f"{_IDENTITY}authorityKeyIdentifier=keyid\n"
)
_MANAGER = "manager"


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
    clients: Annotated[
        str, typer.Option("--clients", metavar="NAME[,…]", help="A certificate is made for each of these.")
    ] = "client",
    *,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew", help="Sign the certificates in the folder again, for their keys; the CA stays."
        ),
    ] = False,
) -> None:
    """Make a small CA, a certificate for the manager and one for its workers and clients.

    The manager takes manager.pem, manager.key and ca.pem; all others client.pem, client.key and ca.pem.
    Keep ca.key away from all of them: who has it can make certificates. The CA is good for ten years, the
    certificates for 825 days. Needs the `openssl` command.
    """
    if renew:
        made = renew_certificates(folder, parse_names(names))
    else:
        made = make_authority(folder, parse_names(names), parse_names(clients))
    for file in made:
        write_exact(str(file))


def make_authority(
    folder: Path, names: tuple[str, ...], clients: tuple[str, ...] = ("client",)
) -> list[Path]:
    """Make a CA, the manager's certificate and one for each of *clients* in *folder*; return the files.

    *names* are the names in the manager's certificate.

    Raises:
        ConfigurationError: there is no `openssl`, it failed, or a client's name is not valid.
        Conflict: one of the files exists.
    """
    _need_openssl()
    for client in clients:
        if not _CLIENT.fullmatch(client) or client in ("ca", _MANAGER):
            raise ConfigurationError(f"{client!r} is no name for a client; use letters, digits and dashes")
    owners = ("ca", _MANAGER, *clients)
    files = [folder / f"{owner}.{kind}" for owner in owners for kind in ("pem", "key")]
    make_folder(folder)
    for file in files:
        if os.path.lexists(file):
            raise Conflict(f"{file} exists and stays as it is; name another folder")
    with tempfile.TemporaryDirectory(prefix="svc-ca-") as draft:
        _make_ca(folder, Path(draft))
        for owner in owners[1:]:
            _make_key(folder / f"{owner}.key")
            _sign(folder, Path(draft), owner, names)
    return files


def renew_certificates(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Sign every certificate in *folder* again, each for its existing key; return the files.

    Each file is replaced at once, and fits its key before and after. *names* as for `make_authority`.

    Raises:
        ConfigurationError: there is no `openssl`, it failed, or there is no authority in *folder*.
    """
    _need_openssl()
    if not (folder / "ca.key").exists():
        raise ConfigurationError(f"no ca.key in {folder}; leave out --renew to make a new authority")
    owners = sorted(key.stem for key in folder.glob("*.key") if key.with_suffix(".pem").exists())
    owners.remove("ca")
    with tempfile.TemporaryDirectory(prefix="svc-ca-") as draft:
        for owner in owners:
            _sign(folder, Path(draft), owner, names)
    return [folder / f"{owner}.pem" for owner in owners]


def _need_openssl() -> None:
    if shutil.which("openssl") is None:
        raise ConfigurationError(
            "there is no `openssl` command here; install it, or run this where there is one"
        )


def _make_ca(folder: Path, draft: Path) -> None:
    usage = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
    config = draft / "ca.cnf"
    config.write_text(f"[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n{usage}{_IDENTITY}")
    _make_key(folder / "ca.key")
    subject = ("-config", str(config), "-subj", "/CN=svc CA", "-days", str(CA_DAYS))
    with _drafted(folder / "ca.pem", replace=False) as signed:
        _openssl("req", "-x509", "-new", "-key", str(folder / "ca.key"), *subject, "-out", str(signed))


def _make_key(file: Path) -> None:
    with _drafted(file, replace=False) as draft:
        _openssl("genpkey", *_ALGORITHM, "-out", str(draft))


@contextmanager
def _drafted(file: Path, *, replace: bool) -> Iterator[Path]:
    """Make *file* under a hidden name, and rename it when it is whole; *replace* an existing file or not.

    Raises:
        Conflict: the file exists, and must not be replaced.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield draft
        if replace:
            draft.replace(file)
        else:
            os.link(draft, file)
    except FileExistsError:
        raise Conflict(f"{file} exists and stays as it is; name another folder") from None
    finally:
        draft.unlink(missing_ok=True)


def _sign(folder: Path, draft: Path, owner: str, names: tuple[str, ...]) -> None:
    """Make OWNER.pem for OWNER.key; replace an existing one."""
    # Both usages, because the manager's own readiness check connects to itself with its certificate.
    manager = f"extendedKeyUsage=serverAuth,clientAuth\n{_alternatives(names)}"
    extensions = manager if owner == _MANAGER else "extendedKeyUsage=clientAuth\n"
    request, config = draft / f"{owner}.csr", draft / f"{owner}.cnf"
    config.write_text(f"[req]\ndistinguished_name=dn\n[dn]\n[ext]\n{_LEAF}{extensions}")
    subject = ("-config", str(config), "-subj", f"/CN=svc {owner}")
    _openssl("req", "-new", "-key", str(folder / f"{owner}.key"), *subject, "-out", str(request))
    authority = ("-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"))
    serial = ("-CAcreateserial", "-CAserial", str(draft / "serial"))
    content = ("-extfile", str(config), "-extensions", "ext", "-days", str(CERTIFICATE_DAYS))
    with _drafted(folder / f"{owner}.pem", replace=True) as signed:
        _openssl("x509", "-req", *authority, *serial, *content, "-in", str(request), "-out", str(signed))


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
