"""The settings of each command, each declared once, as a field of a class.

A value comes from a flag, else from a variable `SVC_*`, else from `svc.toml`. `declarations` has the kinds of
settings that are numbers, `setting_kinds` the others; `key_files` reads keys, `config_file` the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from svc.addresses import DEFAULT_PORT, LOOPBACK, Address, ManagerAddresses, parse_address
from svc.declarations import (
    CENTURY,
    COUNT_MAX,
    DISK_MAX,
    Number,
    count,
    group,
    parse_integer,
    parse_seconds,
    parse_size,
    seconds,
    setting,
    size,
    switch,
)
from svc.domain.limits import CONSUMERS_MAX, MESSAGE_SPARE, Limits
from svc.domain.names import NAME_MAX, QUEUES_MAX, is_free_name, is_name
from svc.envelope import PickleKeys
from svc.errors import ConfigurationError
from svc.journal_address import NatsUser, StreamAddress, parse_user
from svc.key_files import read_authkey, read_nats_credentials, read_pickle_keys
from svc.setting_kinds import (
    address,
    choice,
    http_address,
    journal_place,
    manager_addresses,
    names,
    parse_codecs,
    path,
)
from svc.tls_settings import TlsSettings, parse_tls
from svc.wire_tls import TlsFiles

#: The manager's address if none is set.
DEFAULT_MANAGER = f"{LOOPBACK}:{DEFAULT_PORT}"
#: The ports of the metrics and health of a manager and of a worker.
MANAGER_HTTP_PORT, WORKER_HTTP_PORT = 9100, 9101
MemoryLimit = int | Literal["auto"] | None


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

    manager: ManagerAddresses = manager_addresses(
        DEFAULT_MANAGER, "The manager's address, or several: the first that answers."
    )
    tls_name: str = setting(
        str, "NAME", "", "The name in the manager's certificate; else the host of --manager."
    )


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings(AuthkeySettings, DialSettings):
    """The manager that a command calls, and the key for it."""


@dataclass(frozen=True, kw_only=True)
class RemoteSettings(ConnectionSettings):
    """The settings of a command that asks a manager something."""

    timeout: float = seconds("10s", "1ms", "1d", "Time within which the manager has to answer.")


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """The user and the certificate for journals that are in streams of NATS."""

    nats_credentials_file: Path | None = path(
        None, "FILE", "File with USER:PASSWORD for NATS; else /run/secrets/svc_nats_credentials."
    )
    nats_tls_cert: Path | None = path(None, "FILE", "Our certificate (PEM) for a journal at tls://….")
    nats_tls_key: Path | None = path(None, "FILE", "Its private key (PEM).")
    nats_tls_ca: Path | None = path(None, "FILE", "The CA of the NATS servers' certificates (PEM).")

    def nats_user(self) -> NatsUser | None:
        """Return the user in the credentials file, or None.

        Raises:
            AuthenticationFailed: the file is open to every user of the host.
            ConfigurationError: it cannot be read, or has another content.
        """
        text = read_nats_credentials(self.nats_credentials_file)
        return None if text is None else parse_user(text)

    @property
    def nats_tls(self) -> TlsFiles | None:
        """The files for TLS to the NATS servers, or None."""
        return parse_tls(self.nats_tls_cert, self.nats_tls_key, self.nats_tls_ca, option="--nats-tls")


@dataclass(frozen=True, kw_only=True)
class NewStreamSettings(NatsSettings):
    """The settings of a command that may make a stream for a journal."""

    journal_replicas: int = count("3", "1", "NATS servers that keep each change; 1 survives no lost disk.")


@dataclass(frozen=True, kw_only=True)
class JournalSettings(NatsSettings):
    """The journal that a command reads or writes."""

    journal: Path | StreamAddress = journal_place(
        "journal.sqlite",
        "The journal: a file, or the stream tls://HOST:PORT[,…]/NAME (without TLS nats://…).",
    )


@dataclass(frozen=True, kw_only=True)
class NewJournalSettings(JournalSettings, NewStreamSettings):
    """The journal that a command makes."""


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
class ManagerSettings(NewJournalSettings, ProcessSettings, TlsSettings):
    """The settings of `svc manager`."""

    listen: Address = address(DEFAULT_MANAGER, "Address at which jobs are served.")
    http: Address | None = http_address(MANAGER_HTTP_PORT)
    durability: str = choice(
        "fsync", ("fsync", "os", "memory"), "Moment at which a change counts as accepted."
    )
    limits: Limits = group(Limits)
    max_connections: int = count(
        "4096", "1", "Connections at a time: 3 for a worker of 2 consumers. Each takes a file descriptor."
    )
    max_per_address: int | None = count(
        None, "1", "Connections at a time of one address.", shown="--max-connections"
    )
    max_buffered: int = size(
        "128MiB", "1MiB", DISK_MAX, "Unfinished requests and unread answers of all connections."
    )
    strict_auth: bool = switch("SHA-256 handshakes only: refuses plain clients of CPython 3.11 and older.")
    max_output: int = size(
        "1GiB",
        "1MiB",
        DISK_MAX,
        "Output of tasks that is kept; the oldest goes first. In memory it is 64 MiB.",
    )
    role_keys: Path | None = path(
        None, "DIR", "Folder with submit.key, work.key, read.key, admin.key, shell.key; read again on SIGHUP."
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
    advertise: Address | None = setting(
        parse_address, "HOST:PORT", None, "Address of this manager for clients, if --listen is not the one."
    )
    mirror: Path | None = path(
        None,
        "DIRECTORY",
        "Folder for this host's copy of a stream; emptied at the start. Else svc-NAME.mirror.",
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

    def __post_init__(self) -> None:
        """Check that the largest message fits into the buffers of connections: it could never arrive."""
        super().__post_init__()
        needed = max(self.limits.max_job_bytes, self.limits.grant_bytes) + MESSAGE_SPARE
        if self.max_buffered < needed:
            raise ConfigurationError(
                f"--max-buffered {self.max_buffered} is less than one message may take, {needed} bytes with "
                f"--max-job-bytes {self.limits.max_job_bytes}: raise the one or lower the other"
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
    shell: bool = switch("Run shell commands (`svc run`): who may submit them can run anything here.")


@dataclass(frozen=True, kw_only=True)
class DevSettings(ConsumerSettings):
    """The settings of `svc dev`."""

    accept: tuple[str, ...] = setting(parse_codecs, "plain|pickle[,…]", "plain,pickle", "Codecs of its jobs.")
    journal: Path | None = path(
        None, "FILE", "Keep the jobs in this journal; else they are forgotten at the end.", variable=False
    )
    reload: bool = switch(
        "When a Python file here or of the tasks is changed, load them anew in the same worker, as at SIGHUP."
    )


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
    default_timeout: float = seconds(
        "0",
        "0",
        CENTURY,
        "Kill an attempt after this time if neither its job nor its task has a timeout; 0: never.",
    )
    import_timeout: float = seconds(
        "60s", "1s", "1d", "Time in which a consumer has to import the task modules and run @on_start hooks."
    )
    shell_output: int = size(
        "64KiB",
        "0",
        "1MiB",
        "Bytes kept of each output of a shell command, half of them its end.",
    )
    preload: tuple[str, ...] = names(
        "", "MODULE[,…]", "Modules loaded once, in the process that consumers are forked from and share."
    )
    recycle_jobs: int | None = setting(
        Number(parse_integer, "1", COUNT_MAX, {"off": None}),
        "N|off",
        "off",
        "Replace a consumer after about this number of jobs.",
    )
    recycle_age: float | None = setting(
        Number(parse_seconds, "1s", CENTURY, {"off": None}),
        "SECONDS|off",
        "off",
        "Replace a consumer at this age, or up to a tenth earlier.",
    )
    recycle_rss: int | None = setting(
        Number(parse_size, "1MiB", DISK_MAX, {"off": None}),
        "BYTES|off",
        "off",
        "Replace a consumer when its memory has grown by this since its start.",
    )
    output_bytes: int = size(
        "256KiB",
        "0",
        "16MiB",
        "Output kept of the beginning and of the end of each attempt's stdout and stderr; 0 for none.",
    )
    until_empty: bool = switch("End the worker once its consumers have had no job for the time of --idle.")
    idle: float = seconds("30s", "1s", "7d", "Time without a job after which --until-empty ends the worker.")
    time_limit: float | None = setting(
        Number(parse_seconds, "1s", CENTURY, {"off": None}),
        "SECONDS|off",
        "off",
        "Stop the worker this long after its start, as SIGTERM does.",
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
        if not self.queues:
            raise ConfigurationError("a worker without queues would get no jobs: name them with --queues")
        if len(self.queues) > QUEUES_MAX or not all(map(is_free_name, self.queues)):
            raise ConfigurationError(
                f"a worker serves up to {QUEUES_MAX} queues, whose names have up to {NAME_MAX} printable "
                "characters and begin with no '#'"
            )
        if not (self.tasks or self.shell or "pickle" in self.accept):
            raise ConfigurationError(
                "a worker without tasks would run nothing: name the modules with your tasks, --tasks "
                "MODULE (or SVC_TASKS), or let it run shell commands, --shell"
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
