"""The key files: the authkey, a key for each role, the keys that sign pickles, the user of a NATS cluster.

A key file that every user of the host can read is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from svc.envelope import PickleKeys
from svc.errors import AuthenticationFailed, ConfigurationError, ServiceError

#: The authkey file if none is set: the mount point of container secrets.
DEFAULT_AUTHKEY_FILE = Path("/run/secrets/svc_authkey")
#: The same for the key that signs pickles.
DEFAULT_PICKLE_KEY_FILE = Path("/run/secrets/svc_pickle_key")
#: The same for the user and the password of a NATS cluster.
DEFAULT_NATS_CREDENTIALS_FILE = Path("/run/secrets/svc_nats_credentials")
#: The smallest length of a key in bytes.
AUTHKEY_BYTES_MIN = 16

#: The roles of keys; `svc.server.roles` has the rights of each.
ROLES = ("submit", "work", "read", "admin", "shell")

_SECRETS_FOLDER = Path("/run/secrets")


def read_authkey(path: str | os.PathLike[str] | None = None) -> bytes:
    """Return the authkey in *path*, else in the file in `SVC_AUTHKEY_FILE`, else in the container secret.

    One newline at the end of the file is no part of the key.

    Raises:
        AuthenticationFailed: there is no such file, it cannot be read, it is open to every user of the
            host (a secret under /run/secrets may be), or it holds fewer than 16 bytes.
    """
    found = _find(path, "SVC_AUTHKEY_FILE", DEFAULT_AUTHKEY_FILE)
    if found is None:
        raise AuthenticationFailed(
            "no authkey: name the manager's with --authkey-file FILE or SVC_AUTHKEY_FILE, as `svc dev` "
            "prints it; for a new manager make one with `svc auth generate --output FILE`"
        )
    key = _read_closed(found, "authkey", "svc auth generate", AuthenticationFailed)
    if len(key) < AUTHKEY_BYTES_MIN:
        raise AuthenticationFailed(
            f"the authkey in {found} has {len(key)} bytes and needs at least {AUTHKEY_BYTES_MIN}; "
            "make one with `svc auth generate`"
        )
    return key


def read_pickle_keys(path: str | os.PathLike[str] | None = None) -> PickleKeys | None:
    """Return the keys for pickles in *path*, else in the file in `SVC_PICKLE_KEY_FILE`, else in the secret.

    Each line is one key. The first one signs; a second one also verifies, while keys are changed. None if no
    file is named and there is no secret.

    Raises:
        AuthenticationFailed: the file is open to every user of the host.
        ConfigurationError: it cannot be read, or has no key, a short one, or more than two.
    """
    found = _find(path, "SVC_PICKLE_KEY_FILE", DEFAULT_PICKLE_KEY_FILE)
    if found is None:
        return None
    lines = _read_closed(found, "pickle key", "svc auth generate --pickle", ConfigurationError).splitlines()
    if not lines or len(min(lines, key=len)) < AUTHKEY_BYTES_MIN:
        raise ConfigurationError(
            f"a line of {found} has fewer than the {AUTHKEY_BYTES_MIN} bytes of a pickle key; make one with "
            "`svc auth generate --pickle`"
        )
    return PickleKeys(tuple(lines))


def read_nats_credentials(path: str | os.PathLike[str] | None = None) -> str | None:
    """Return the content of *path*, else of the file in `SVC_NATS_CREDENTIALS_FILE`, else of the secret.

    None if no file is named and there is no secret.

    Raises:
        AuthenticationFailed: the file is open to every user of the host.
        ConfigurationError: it cannot be read, or is no text.
    """
    found = _find(path, "SVC_NATS_CREDENTIALS_FILE", DEFAULT_NATS_CREDENTIALS_FILE)
    if found is None:
        return None
    cure = "printf 'USER:PASSWORD' >FILE"
    try:
        return _read_closed(found, "NATS credentials", cure, ConfigurationError).decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file of NATS credentials {found} is no text") from None


def read_role_keys(folder: Path) -> list[tuple[str, bytes]]:
    """Return the keys in *folder* with their roles, from `submit.key`, `work.key` and so on.

    Beside each there may be a second active key, such as `work.key.next`: while keys are changed, holders of
    the old key and of the new one are both served.

    Raises:
        AuthenticationFailed: a key cannot be read, is open to every user of the host, or is too short.
        ConfigurationError: there is no key in *folder*.
    """
    files = [(role, folder / f"{role}.key{suffix}") for role in ROLES for suffix in ("", ".next")]
    found = [(role, read_authkey(path)) for role, path in files if path.exists()]
    if not found:
        raise ConfigurationError(f"no key in {folder}; `svc auth generate --all {folder}` makes one a role")
    return found


def check_closed(path: Path, mode: int) -> None:
    """Check that not every user of the host can read or change the key in *path*, a file of that *mode*.

    A secret under /run/secrets may be open: a container runtime puts it there, and no other user is inside.
    There is no check if the system has no owners of files as in POSIX: Windows calls every file open.

    Raises:
        AuthenticationFailed: every user can.
    """
    if not hasattr(os, "getuid"):
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH) and _SECRETS_FOLDER.resolve() not in path.resolve().parents:
        can = "read" if mode & stat.S_IROTH else "change"
        raise AuthenticationFailed(
            f"every user of this host can {can} the key in {path}; run `chmod o-rwx {path}`"
        )


def _read_closed(path: Path, kind: str, cure: str, unreadable: type[ServiceError]) -> bytes:
    """Return the content of a key file without one newline at its end.

    Raises:
        AuthenticationFailed: it is open to every user of the host.
        ServiceError: it cannot be read; of the class *unreadable*.
    """
    try:
        with path.open("rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read(1 << 16)
    except OSError as error:
        raise unreadable(
            f"the {kind} file {path} cannot be read ({error.strerror}); make one with `{cure}`"
        ) from None
    check_closed(path, mode)
    return key[:-1] if key.endswith(b"\n") else key


def _find(path: str | os.PathLike[str] | None, variable: str, default: Path) -> Path | None:
    named = path or os.environ.get(variable)
    if named:
        return Path(named)
    return default if default.exists() else None
