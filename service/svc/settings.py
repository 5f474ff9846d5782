"""The settings of each command, each declared once, as a field of a class.

A value comes from a flag, else from a variable `SVC_*`, else from `svc.toml`. `declarations` has the kinds of
settings that are numbers; here are addresses, files, names and words. `key_files` reads keys, `config_file`
the settings file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from svc.addresses import DEFAULT_PORT, LOOPBACK, Address, parse_address, parse_optional_address
from svc.declarations import (
    CENTURY,
    DISK_MAX,
    Number,
    count,
    group,
    parse_integer,
    parse_size,
    seconds,
    setting,
    size,
    switch,
)
from svc.domain.limits import CONSUMERS_MAX, Limits
from svc.domain.names import CODECS, NAME_MAX, QUEUES_MAX, is_free_name, is_name
from svc.envelope import PickleKeys
from svc.errors import ConfigurationError
from svc.key_files import read_authkey, read_pickle_keys
from svc.wire_tls import TlsFiles

#: The manager's address if none is set.
DEFAULT_MANAGER = f"{LOOPBACK}:{DEFAULT_PORT}"
#: The ports of the metrics and health of a manager and of a worker.
MANAGER_HTTP_PORT, WORKER_HTTP_PORT = 9100, 9101
MemoryLimit = int | Literal["auto"] | None


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, without blanks and empty names, each once."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def parse_word(word: str, words: Sequence[str]) -> str:
    """Return *word*.

    Raises:
        ConfigurationError: it is not one of *words*.
    """
    if word not in words:
        raise ConfigurationError(f"{word!r} is not one of {', '.join(filter(None, words))}")
    return word


def parse_codecs(text: str) -> tuple[str, ...]:
    """Return the codecs in a comma-separated list, and `plain` before them.

    Raises:
        ConfigurationError: there is no such codec.
    """
    return tuple(dict.fromkeys((CODECS[0], *(parse_word(name, CODECS) for name in parse_names(text)))))


def parse_tls(cert: Path | None, key: Path | None, ca: Path | None, name: str = "") -> TlsFiles | None:
    """Return the files in the TLS settings, or None if none is set.

    Raises:
        ConfigurationError: some are set and others not.
    """
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise ConfigurationError("TLS needs all three: --tls-cert, --tls-key and --tls-ca")
    return TlsFiles(cert, key, ca, name)


def address(default: str, text: str, *, variable: bool = True) -> Any:
    """Return a field with an address of a manager."""
    return setting(parse_address, "HOST:PORT", default, text, variable=variable)


def http_address(port: int) -> Any:
    """Return a field with the address of metrics and health, on this host at *port* if none is named."""
    read = partial(parse_optional_address, default_port=port)
    return setting(read, "HOST:PORT", f"{LOOPBACK}:{port}", "Address of metrics and health, or `off`.")


def path(default: str | None, metavar: str, text: str, *, variable: bool = True) -> Any:
    """Return a field with a path of a file or folder."""
    return setting(Path, metavar, default, text, variable=variable)


def names(default: str, metavar: str, text: str) -> Any:
    """Return a field with names, which a user separates by commas."""
    return setting(parse_names, metavar, default, text)


def choice(default: str, words: Sequence[str], text: str) -> Any:
    """Return a field with one of *words*."""
    return setting(partial(parse_word, words=words), "|".join(words), default, text)


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The certificates of each command that serves or calls a manager."""

    tls_cert: Path | None = path(None, "FILE", "Our certificate (PEM); turns TLS 1.3 on.")
    tls_key: Path | None = path(None, "FILE", "Its private key (PEM).")
    tls_ca: Path | None = path(None, "FILE", "The CA of the other side's certificate (PEM).")
    tls_name: str = ""

    def __post_init__(self) -> None:
        """Check that all three are set, or none."""
        parse_tls(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def tls(self) -> TlsFiles | None:
        """The files for a TLS connection, or None for a plain one."""
        return parse_tls(self.tls_cert, self.tls_key, self.tls_ca, self.tls_name)


@dataclass(frozen=True, kw_only=True)
class AuthkeySettings:
    """The shared secret."""

    authkey_file: Path | None = path(
        None, "FILE", "File with the shared secret; else /run/secrets/svc_authkey."
    )

    def read_authkey(self) -> bytes:
        """Return the authkey that is in its file now; as `key_files.read_authkey`."""
        return read_authkey(self.authkey_file)


@dataclass(frozen=True, kw_only=True)
class DialSettings(TlsSettings):
    """The manager that a command calls."""

    manager: Address = address(DEFAULT_MANAGER, "The manager's address.")
    tls_name: str = setting(
        str, "NAME", "", "The name in the manager's certificate; else the host of --manager."
    )


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings(AuthkeySettings, DialSettings):
    """The manager that a command calls, and the key for it."""


@dataclass(frozen=True, kw_only=True)
class RemoteSettings(ConnectionSettings):
    """The settings of a command that asks a manager something."""

    timeout: float = seconds("10s", "0", "1d", "Time within which the manager has to answer.")


@dataclass(frozen=True, kw_only=True)
class JournalSettings:
    """The journal that a command reads or writes."""

    journal: Path = path("svc.journal", "PATH", "The journal file.")


@dataclass(frozen=True, kw_only=True)
class AnnounceSettings:
    """A file by which a process tells others its addresses."""

    announce: Path | None = path(
        None,
        "FILE",
        "Write the bound addresses there as JSON once they serve; of use with port 0.",
        variable=False,
    )


@dataclass(frozen=True, kw_only=True)
class TunnelSettings(AnnounceSettings, DialSettings):
    """The settings of `svc tunnel`."""

    listen: Address = address(DEFAULT_MANAGER, "Address for plain clients, on loopback only.", variable=False)


@dataclass(frozen=True, kw_only=True)
class ProcessSettings(AnnounceSettings, AuthkeySettings):
    """The settings that manager and worker share."""

    http_hosts: tuple[str, ...] = names(
        "", "NAME[,…]", "Further host names of that address in requests, or `*` for any."
    )
    log_format: Literal["auto", "json", "console"] = choice(
        "auto", ("auto", "json", "console"), "Format of log lines."
    )
    log_level: str = choice(
        "info", ("debug", "info", "warning", "error"), "Least severe level that is logged."
    )


@dataclass(frozen=True, kw_only=True)
class ManagerSettings(JournalSettings, ProcessSettings, TlsSettings):
    """The settings of `svc manager`."""

    listen: Address = address(DEFAULT_MANAGER, "Address at which jobs are served.")
    http: Address | None = http_address(MANAGER_HTTP_PORT)
    durability: str = choice(
        "fsync", ("fsync", "os", "memory"), "Moment at which a change counts as accepted."
    )
    limits: Limits = group(Limits)
    max_connections: int = count("1024", "1", "Connections at a time.")
    max_per_address: int | None = count(
        None, "1", "Connections at a time of one address.", shown="--max-connections"
    )
    max_buffered: int = size(
        "128MiB", "1MiB", DISK_MAX, "Unfinished requests and unread answers of all connections."
    )
    strict_auth: bool = switch("SHA-256 handshakes only: refuses plain clients of CPython 3.11 and older.")
    role_keys: Path | None = path(
        None, "DIR", "Folder with submit.key, work.key, read.key, admin.key; read again on SIGHUP."
    )
    ballast_bytes: int = size(
        "16MiB", "0", DISK_MAX, "Disk space kept for acknowledgements on a full disk; 0 for none."
    )
    accept_loss: bool = switch(
        "Serve a journal whose end is lost, after a copy of it is kept beside it.", variable=False
    )
    journal_must_exist: bool = switch("Make no new journal if there is none: its disk may not be mounted.")
    journal_marker: Path | None = path(
        None, "FILE", "Say here, on another disk, that the journal was made; it must exist from then on."
    )
    accept_network_filesystem: bool = switch(
        "Serve a journal on NFS or the like, whose locks may let two managers write at once."
    )
    max_clock_jump: float = seconds(
        "1d",
        "1s",
        CENTURY,
        "Hold the clock if the host's time is further than this from the journal's at the start.",
    )
    backups: Path | None = path(
        None, "DIRECTORY", "Directory for online backups; else the journal's path and `.backups`."
    )
    memory_limit: MemoryLimit = setting(
        Number(parse_size, "1", DISK_MAX, {"auto": "auto", "off": None}),
        "auto|BYTES|off",
        "auto",
        "Memory near which new jobs are refused; auto: the limit of its control group.",
    )


@dataclass(frozen=True, kw_only=True)
class ConsumerSettings:
    """The jobs that a worker takes, and the number of processes that run them."""

    tasks: tuple[str, ...] = names("", "MODULE[,…]", "Modules whose tasks the worker runs.")
    queues: tuple[str, ...] = names("default", "NAME[,…]", "Queues to take jobs from.")
    consumers: int | None = setting(
        Number(parse_integer, "1", str(CONSUMERS_MAX), {"auto": None}),
        "auto|N",
        "auto",
        "Consumer processes; auto: twice the CPUs.",
    )


@dataclass(frozen=True, kw_only=True)
class DevSettings(ConsumerSettings):
    """The settings of `svc dev`."""

    accept: tuple[str, ...] = setting(parse_codecs, "plain|pickle", "plain,pickle", "Codecs of its jobs.")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(ConsumerSettings, ProcessSettings, ConnectionSettings):
    """The settings of `svc worker`.

    Attributes:
        http_moves: serve metrics and health at a free port if that of *http* is taken.
    """

    http: Address | None = http_address(WORKER_HTTP_PORT)
    accept: tuple[str, ...] = setting(
        parse_codecs,
        "plain|pickle[,…]",
        "plain",
        "Codecs of the jobs it runs; with pickle, the holders of the pickle key can run any code here.",
    )
    pickle_key_file: Path | None = path(
        None,
        "FILE",
        "Key shared with submitters and never with the manager; else /run/secrets/svc_pickle_key.",
    )
    grace: float = seconds("30s", "0", "7d", "Time that running jobs have after SIGTERM.")
    import_timeout: float = seconds(
        "60s", "1s", "1d", "Time within which a consumer has to import the task modules."
    )
    name: str = setting(str, "NAME", "", "The worker's name; else made from the host's.")
    http_moves: bool = False

    def __post_init__(self) -> None:
        """Check the names, and that there is something to run."""
        super().__post_init__()
        if self.name and not is_name(self.name):
            raise ConfigurationError(
                f"{self.name[:NAME_MAX]!r} cannot name a worker; a name has up to {NAME_MAX} characters, "
                "all of them printable"
            )
        if len(self.queues) > QUEUES_MAX or not all(map(is_free_name, self.queues)):
            raise ConfigurationError(
                f"a worker serves up to {QUEUES_MAX} queues, whose names have up to {NAME_MAX} printable "
                "characters and begin with no '#'"
            )
        if not self.tasks and "pickle" not in self.accept:
            raise ConfigurationError(
                "a worker without tasks would run nothing: name the modules with your tasks, --tasks "
                "MODULE (or SVC_TASKS)"
            )

    def read_pickle_keys(self, authkey: bytes) -> PickleKeys | None:
        """Return the keys that verify pickled jobs and sign pickled results, as `key_files.read_pickle_keys`.

        Raises:
            ConfigurationError: the worker accepts pickles and there is no key, or it is the *authkey*.
        """
        keys = read_pickle_keys(self.pickle_key_file)
        if "pickle" not in self.accept:
            return keys
        if keys is None:
            raise ConfigurationError(
                "--accept pickle needs the key that submitters sign with: make one with `svc auth generate "
                "--pickle`, give it to submitters and workers and never to the manager, and name it with "
                "--pickle-key-file FILE or SVC_PICKLE_KEY_FILE"
            )
        if authkey in keys.secrets:
            raise ConfigurationError(
                "the pickle key is the authkey, which the manager has too; make another one with `svc auth "
                "generate --pickle`"
            )
        return keys
