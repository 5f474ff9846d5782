"""The settings and their sources: flags, then `SVC_*`, then `svc.toml`.

The command line declares each setting once, with its flag and its variable. This module parses the values:
addresses, durations and names. `key_files` reads keys, `config_file` reads the settings file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from svc.domain.limits import SECONDS_MAX, Limits
from svc.domain.names import NAME_MAX, QUEUES_MAX, is_free_name, is_name
from svc.envelope import PickleKeys
from svc.errors import ConfigurationError
from svc.wire_tls import TlsFiles

#: The manager's port if none is named; the same as `svc.wire.DEFAULT_PORT`.
DEFAULT_PORT = 7077
#: The host of an address that is a port alone: what listens there is reached from this host only.
LOOPBACK = "127.0.0.1"
#: Where the manager is looked for where nothing is set.
DEFAULT_MANAGER = f"{LOOPBACK}:{DEFAULT_PORT}"
#: The ports where a manager and a worker serve metrics and health.
MANAGER_HTTP_PORT, WORKER_HTTP_PORT = 9100, 9101
_HOST = r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s-][^\[\]:\s]*))"
_ADDRESS = re.compile(rf"{_HOST}(?::(?P<port>\d{{1,5}}))?")
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a TCP port (0: any free one, if a server listens)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


MemoryLimit = int | Literal["auto"] | None


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """All settings of `svc manager`.

    Attributes:
        listen: the address at which jobs are served.
        http: the address at which metrics and health are served; None for none.
        http_hosts: further names under which these are served; see `telemetry.http_hosts`.
        journal: the journal file; made if it is missing.
        authkey: the shared secret.
        durability: the moment at which a change counts as accepted: `fsync`, `os` or `memory`.
        limits: bounds and retention of the queues.
        max_connections: connections at a time.
        max_per_address: connections at a time of one address (one /64 network for IPv6).
        max_buffered: bytes of unfinished requests and unread answers, of all connections together.
        strict_auth: refuse handshakes older than SHA-256, like those of stock clients of CPython 3.11.
        authkey_file: the source of the authkey, to read it again on SIGHUP; None to keep it.
        role_keys: folder with keys that have fewer rights: see `read_role_keys`.
        tls: certificates to serve TLS with; None serves plain connections.
        ballast_bytes: disk space kept beside the journal for acknowledgements on a full disk.
        accept_loss: serve a journal whose end is lost, once a copy of it is kept.
        journal_must_exist: make no journal if there is none.
        journal_marker: a file on another disk that says that the journal was made, and has to exist.
        accept_network_filesystem: serve a journal on a file system that other hosts share.
        max_clock_jump: seconds that the host's time may be away from the journal's at the start, before the
            manager goes on from the latter.
        backups: the directory that online backups go into; None for one beside the journal.
        memory_limit: bytes of memory near which new jobs are refused; `auto` for the limit of the control
            group, None for no such bound.
        announce: file that gets the bound addresses as JSON (`listen`, `http`) once they serve.
        log_format: `auto` (JSON if stderr is not a terminal), `json` or `console`.
        log_level: `debug`, `info`, `warning` or `error`.
    """

    listen: Address
    http: Address | None
    journal: Path
    authkey: bytes = field(repr=False)
    durability: str = "fsync"
    limits: Limits = field(default_factory=Limits)
    ballast_bytes: int = 16 * 1024 * 1024
    accept_loss: bool = False
    journal_must_exist: bool = False
    journal_marker: Path | None = None
    accept_network_filesystem: bool = False
    max_clock_jump: float = 24 * 3600.0
    backups: Path | None = None
    memory_limit: MemoryLimit = "auto"
    max_connections: int = 1024
    max_per_address: int = 1024
    max_buffered: int = 128 * 1024 * 1024
    strict_auth: bool = False
    authkey_file: Path | None = None
    role_keys: Path | None = None
    tls: TlsFiles | None = None
    announce: Path | None = None
    http_hosts: tuple[str, ...] = ()
    log_format: str = "auto"
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All settings of `svc worker`. Times are in seconds.

    Attributes:
        manager: where jobs come from.
        http: where metrics and health are served; None for nowhere.
        http_moves: serve them at a free port if that one is taken.
        http_hosts: further names under which these are served; see `telemetry.http_hosts`.
        authkey: the shared secret.
        tasks: modules whose tasks this worker runs.
        queues: queues that it takes jobs from.
        consumers: number of consumer processes; None for twice the CPUs that it may use.
        accept: codecs of the jobs that it runs; `pickle` needs keys.
        pickle_keys: the keys that verify pickled jobs and sign pickled results.
        grace: time that running jobs have after SIGTERM.
        import_timeout: time that a consumer may take to import the task modules.
        name: the worker's name; empty for one made from the host's name.
        tls: certificates to dial with; None for a plain connection.
        announce: file that gets the bound address as JSON (`http`) once it serves.
        log_format: `auto` (JSON if stderr is not a terminal), `json` or `console`.
        log_level: `debug`, `info`, `warning` or `error`.
    """

    manager: Address
    http: Address | None
    authkey: bytes = field(repr=False)
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ("default",)
    consumers: int | None = None
    accept: tuple[str, ...] = ("plain",)
    pickle_keys: PickleKeys | None = None
    grace: float = 30.0
    import_timeout: float = 60.0
    name: str = ""
    tls: TlsFiles | None = None
    announce: Path | None = None
    http_hosts: tuple[str, ...] = ()
    log_format: str = "auto"
    log_level: str = "info"
    http_moves: bool = False

    def __post_init__(self) -> None:
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
        if "pickle" not in self.accept:
            if not self.tasks:
                raise ConfigurationError(
                    "a worker without tasks would run nothing: name the modules with your tasks, --tasks "
                    "MODULE (or SVC_TASKS)"
                )
            return
        if self.pickle_keys is None:
            raise ConfigurationError(
                "--accept pickle needs the key that submitters sign with: make one with `svc auth generate "
                "--pickle`, give it to submitters and workers and never to the manager, and name it with "
                "--pickle-key-file FILE or SVC_PICKLE_KEY_FILE"
            )
        if self.authkey in self.pickle_keys.secrets:
            raise ConfigurationError(
                "the pickle key is the authkey, which the manager has too; make another one with `svc auth "
                "generate --pickle`"
            )


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address that HOST, HOST:PORT, [IPV6], [IPV6]:PORT or PORT names; PORT is of this host alone.

    Raises:
        ConfigurationError: *text* is none of these.
    """
    text = text.strip()
    match = _ADDRESS.fullmatch(f"{LOOPBACK}:{text}" if text.isdigit() else text)
    port = int(match["port"] or default_port) if match else 65536
    if match is None or port > 65535:
        raise ConfigurationError(
            f"{text!r} is not an address; write HOST:PORT, or a PORT of up to 65535, with brackets around "
            f"IPv6: [::1]:{default_port}"
        )
    return Address(match["v6"] or match["host"], port)


def parse_optional_address(text: str, default_port: int = DEFAULT_PORT) -> Address | None:
    """Return the address that *text* names, or None if it is `off`; as `parse_address`."""
    return None if text.strip().lower() == "off" else parse_address(text, default_port)


def parse_seconds(text: str | float) -> float:
    """Return the seconds in a duration such as `90`, `1.5`, `500ms`, `10s`, `5m`, `2h` or `7d`.

    Raises:
        ConfigurationError: *text* is not a duration, or over a hundred years.
    """
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise ConfigurationError(
            f"{text!r} is not a duration; write seconds, or for instance 500ms, 5m, 2h, 7d"
        )
    seconds = float(match["number"]) * _SECONDS[match["unit"] or "s"]
    if seconds > SECONDS_MAX:
        raise ConfigurationError(f"{text!r} is too long; a duration is a hundred years at most (36500d)")
    return seconds


def parse_size(text: str | int) -> int:
    """Return the bytes in a size such as `65536`, `512KiB`, `4MiB` or `1GiB`.

    Raises:
        ConfigurationError: *text* is not a size.
    """
    match = re.fullmatch(r"(\d+)\s*([KMG]i?B?|B)?", str(text).strip(), re.IGNORECASE)
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size; write bytes, or for instance 512KiB, 4MiB")
    return int(match[1]) << {"K": 10, "M": 20, "G": 30}.get((match[2] or "B")[0].upper(), 0)


def parse_memory_limit(text: str) -> MemoryLimit:
    """Return the bytes in *text* as `parse_size` reads them, `auto`, or None for `off`.

    Raises:
        ConfigurationError: *text* is none of these.
    """
    word = text.strip().lower()
    if word in ("auto", "off"):
        return "auto" if word == "auto" else None
    if not (size := parse_size(text)):
        raise ConfigurationError("a memory limit of 0 bytes allows nothing; write `off` for no limit")
    return size


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, without blanks and empty names, each once."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


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


#: The settings of each command, by name; those of the commands in a group are one level below.
Known = Mapping[str, "frozenset[str] | Known"]

_TLS = frozenset({"tls_cert", "tls_key", "tls_ca"})
_DIAL = _TLS | {"tls_name"}
_REMOTE = frozenset({"manager", "authkey_file", "timeout"}) | _DIAL
_PROCESS = frozenset({"authkey_file", "http", "http_hosts", "log_format", "log_level"})
#: The settings in svc.toml. Each has a flag, a variable (`SVC_` and its name) and a key.
SETTINGS: Known = {
    "dev": frozenset({"tasks", "queues", "consumers", "accept"}),
    "manager": _PROCESS
    | {"listen", "journal", "durability", "lease", "retention", "dead_retention", "retain_count"}
    | {
        "max_queue",
        "max_jobs",
        "max_queues",
        "max_keys",
        "max_origins",
        "max_job_bytes",
        "suspicion_budget",
        "max_connections",
        "max_per_address",
        "max_buffered",
        "min_free",
    }
    | {"strict_auth", "role_keys"}
    | {"ballast_bytes", "backups", "memory_limit"}
    | {"journal_must_exist", "journal_marker", "accept_network_filesystem", "max_clock_jump"}
    | _TLS,
    "tunnel": _DIAL | {"manager"},
    "worker": _PROCESS
    | _DIAL
    | {"manager", "tasks", "queues", "consumers", "accept", "pickle_key_file", "grace", "name"}
    | {"import_timeout"},
    "submit": _REMOTE,
    "results": _REMOTE,
    "jobs": {"list": _REMOTE, "show": _REMOTE, "cancel": _REMOTE, "requeue": _REMOTE},
    "queues": _REMOTE,
    "workers": _REMOTE,
    "status": _REMOTE,
    "drain": _REMOTE - {"timeout"},
    "resume": _REMOTE - {"timeout"},
    "metrics": _REMOTE,
    "journal": {
        "info": frozenset({"journal"}),
        "verify": frozenset({"journal"}),
        "backup": _REMOTE,
        "restore": frozenset({"journal"}),
        "accept-clock": _REMOTE,
    },
}


def config_defaults(config: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """Return the defaults of every command: its own table overrides the keys at the top of the file.

    A key at the top, such as `manager`, is for every command that has this setting. A key in a table,
    such as `[worker]` or `[jobs.list]`, is for that command.

    Raises:
        ConfigurationError: a key is not a setting; the message has the most similar one.
    """
    return _defaults(config, known, {}, "")


def _defaults(
    table: Mapping[str, Any], known: Known, inherited: Mapping[str, Any], path: str
) -> dict[str, Any]:
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    own = {_underscored(key): _plain(value) for key, value in table.items() if key not in tables}
    _check(tables, known, path, "table")
    _check(own, _all_settings(known), path, "setting")
    shared = {**inherited, **own}
    return {
        name: _defaults(tables.get(name, {}), settings, shared, f"{path}{name}.")
        if isinstance(settings, Mapping)
        else _command_defaults(tables.get(name, {}), settings, shared, f"{path}{name}.")
        for name, settings in known.items()
    }


def _command_defaults(
    table: Mapping[str, Any], settings: frozenset[str], inherited: Mapping[str, Any], path: str
) -> dict[str, Any]:
    own = {_underscored(key): _plain(value) for key, value in table.items()}
    _check(own, settings, path, "setting")
    return {key: value for key, value in {**inherited, **own}.items() if key in settings}


def _underscored(key: str) -> str:
    """Return the name of a setting that may be written like its flag."""
    return key.replace("-", "_")


def _check(found: Mapping[str, Any], known: frozenset[str] | Known, path: str, kind: str) -> None:
    for key in found:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"; the nearest {kind} is {path}{near[0]}" if near else ""
            raise ConfigurationError(f"the settings file has an unknown {kind} {path}{key}{hint}")


def _all_settings(known: Known) -> frozenset[str]:
    names: set[str] = set()
    for settings in known.values():
        names |= _all_settings(settings) if isinstance(settings, Mapping) else settings
    return frozenset(names)


def _plain(value: Any) -> Any:
    """Return a value as the text of a flag: a list with commas; a boolean stays one."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)
