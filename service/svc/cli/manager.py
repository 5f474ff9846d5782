"""`svc manager`: from flags to the settings of a manager that runs until it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from svc.cli.bounds import CENTURY, COUNT_MAX, DISK_MAX, seconds, size
from svc.cli.options import Announce, AuthkeyFile, Http, HttpHosts, LogFormat, LogLevel
from svc.cli.tls import tls_of
from svc.cli.wiring import Wiring
from svc.domain.limits import MESSAGE_BYTES_MAX, Limits
from svc.key_files import find_authkey_file, read_authkey
from svc.settings import (
    DEFAULT_MANAGER,
    LOOPBACK,
    MANAGER_HTTP_PORT,
    ManagerSettings,
    parse_address,
    parse_memory_limit,
    parse_names,
    parse_optional_address,
)

_DEFAULTS = Limits()


def manager(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    listen: Annotated[
        str, typer.Option("--listen", envvar="SVC_LISTEN", metavar="HOST:PORT", help="Where to serve jobs.")
    ] = DEFAULT_MANAGER,
    http: Http = f"{LOOPBACK}:{MANAGER_HTTP_PORT}",
    http_hosts: HttpHosts = "",
    journal: Annotated[
        Path,
        typer.Option(
            "--journal", envvar="SVC_JOURNAL", metavar="PATH", help="The journal file; made if missing."
        ),
    ] = Path("svc.journal"),
    durability: Annotated[
        Literal["fsync", "os", "memory"],
        typer.Option("--durability", envvar="SVC_DURABILITY", help="When a change counts as accepted."),
    ] = "fsync",
    lease: Annotated[
        float,
        typer.Option(
            "--lease",
            envvar="SVC_LEASE",
            parser=seconds("1s", "1d"),
            metavar="SECONDS",
            help="How long a silent worker keeps its jobs.",
        ),
    ] = _DEFAULTS.lease_seconds,
    retention: Annotated[
        float,
        typer.Option(
            "--retention",
            envvar="SVC_RETENTION",
            parser=seconds("0", CENTURY),
            metavar="SECONDS",
            show_default="1d",
            help="How long finished jobs are kept.",
        ),
    ] = _DEFAULTS.retention_seconds,
    dead_retention: Annotated[
        float,
        typer.Option(
            "--dead-retention",
            envvar="SVC_DEAD_RETENTION",
            parser=seconds("0", CENTURY),
            metavar="SECONDS",
            show_default="30d",
            help="How long dead jobs are kept.",
        ),
    ] = _DEFAULTS.dead_retention_seconds,
    retain_count: Annotated[
        int,
        typer.Option(
            "--retain-count",
            envvar="SVC_RETAIN_COUNT",
            min=0,
            max=COUNT_MAX,
            metavar="N",
            help="Finished jobs kept at most.",
        ),
    ] = _DEFAULTS.retention_jobs,
    max_queue: Annotated[
        int,
        typer.Option(
            "--max-queue",
            envvar="SVC_MAX_QUEUE",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Unfinished jobs of one queue.",
        ),
    ] = _DEFAULTS.max_queue_jobs,
    max_jobs: Annotated[
        int,
        typer.Option(
            "--max-jobs",
            envvar="SVC_MAX_JOBS",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Unfinished jobs of all queues.",
        ),
    ] = _DEFAULTS.max_jobs,
    max_queues: Annotated[
        int,
        typer.Option(
            "--max-queues",
            envvar="SVC_MAX_QUEUES",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Queues that hold or keep jobs.",
        ),
    ] = _DEFAULTS.max_queues,
    max_keys: Annotated[
        int,
        typer.Option(
            "--max-keys",
            envvar="SVC_MAX_KEYS",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Idempotency keys of kept jobs.",
        ),
    ] = _DEFAULTS.max_keys,
    max_origins: Annotated[
        int,
        typer.Option(
            "--max-origins",
            envvar="SVC_MAX_ORIGINS",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Clients whose jobs are kept; each takes 1.5 kB of memory.",
        ),
    ] = _DEFAULTS.max_origins,
    max_job_bytes: Annotated[
        int,
        typer.Option(
            "--max-job-bytes",
            envvar="SVC_MAX_JOB_BYTES",
            parser=size("1", f"{MESSAGE_BYTES_MAX >> 20}MiB"),
            metavar="BYTES",
            show_default="16MiB",
            help="Size of one job's arguments, and of one result.",
        ),
    ] = _DEFAULTS.max_job_bytes,
    suspicion_budget: Annotated[
        int,
        typer.Option(
            "--suspicion-budget",
            envvar="SVC_SUSPICION_BUDGET",
            min=0,
            max=COUNT_MAX,
            metavar="N",
            help="Workers that a job may lose while it runs alone, before it is dead; 0 for no end.",
        ),
    ] = _DEFAULTS.suspicion_budget,
    max_connections: Annotated[
        int,
        typer.Option(
            "--max-connections",
            envvar="SVC_MAX_CONNECTIONS",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Connections at a time.",
        ),
    ] = 1024,
    max_per_address: Annotated[
        int | None,
        typer.Option(
            "--max-per-address",
            envvar="SVC_MAX_PER_ADDRESS",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            show_default="--max-connections",
            help="Connections at a time of one address.",
        ),
    ] = None,
    max_buffered: Annotated[
        int,
        typer.Option(
            "--max-buffered",
            envvar="SVC_MAX_BUFFERED",
            parser=size("1MiB", DISK_MAX),
            metavar="BYTES",
            show_default="128MiB",
            help="Unfinished requests and unread answers of all connections.",
        ),
    ] = 128 * 1024 * 1024,
    strict_auth: Annotated[
        bool,
        typer.Option(
            "--strict-auth",
            envvar="SVC_STRICT_AUTH",
            help="SHA-256 handshakes only: refuses plain clients of CPython 3.11 and older.",
        ),
    ] = False,
    role_keys: Annotated[
        Path | None,
        typer.Option(
            "--role-keys",
            envvar="SVC_ROLE_KEYS",
            metavar="DIR",
            help="Folder with submit.key, work.key, read.key, admin.key; read again on SIGHUP.",
        ),
    ] = None,
    min_free: Annotated[
        int,
        typer.Option(
            "--min-free",
            envvar="SVC_MIN_FREE",
            parser=size("0", DISK_MAX),
            metavar="BYTES",
            show_default="64MiB",
            help="Disk space below which new jobs are refused.",
        ),
    ] = _DEFAULTS.min_free_bytes,
    ballast_bytes: Annotated[
        int,
        typer.Option(
            "--ballast-bytes",
            envvar="SVC_BALLAST_BYTES",
            parser=size("0", DISK_MAX),
            metavar="BYTES",
            show_default="16MiB",
            help="Disk space kept for acknowledgements on a full disk; 0 for none.",
        ),
    ] = 16 * 1024 * 1024,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss", help="Serve a journal whose end is lost, after a copy of it is kept beside it."
        ),
    ] = False,
    journal_must_exist: Annotated[
        bool,
        typer.Option(
            "--journal-must-exist",
            envvar="SVC_JOURNAL_MUST_EXIST",
            help="Make no new journal if there is none: its disk may not be mounted.",
        ),
    ] = False,
    journal_marker: Annotated[
        Path | None,
        typer.Option(
            "--journal-marker",
            envvar="SVC_JOURNAL_MARKER",
            metavar="FILE",
            help="Say here, on another disk, that the journal was made; it must exist from then on.",
        ),
    ] = None,
    accept_network_filesystem: Annotated[
        bool,
        typer.Option(
            "--accept-network-filesystem",
            envvar="SVC_ACCEPT_NETWORK_FILESYSTEM",
            help="Serve a journal on NFS or the like, whose locks may let two managers write at once.",
        ),
    ] = False,
    max_clock_jump: Annotated[
        float,
        typer.Option(
            "--max-clock-jump",
            parser=seconds("1s", CENTURY),
            envvar="SVC_MAX_CLOCK_JUMP",
            metavar="SECONDS",
            show_default="1d",
            help="Hold the clock if the host's time is further than this from the journal's at the start.",
        ),
    ] = 24 * 3600.0,
    backups: Annotated[
        Path | None,
        typer.Option(
            "--backups",
            envvar="SVC_BACKUPS",
            metavar="DIRECTORY",
            help="Where online backups go; else the journal's path and `.backups`.",
        ),
    ] = None,
    memory_limit: Annotated[
        str,
        typer.Option(
            "--memory-limit",
            envvar="SVC_MEMORY_LIMIT",
            parser=size("1", DISK_MAX, "auto", "off"),
            metavar="auto|BYTES|off",
            help="Memory near which new jobs are refused; auto: the limit of its control group.",
        ),
    ] = "auto",
    authkey_file: AuthkeyFile = None,
    announce: Announce = None,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> int:
    """Run the manager, until it is stopped.

    It keeps the queues and their journal, and serves workers and clients.
    """
    wiring: Wiring = ctx.obj
    limits = Limits(
        lease_seconds=lease,
        max_job_bytes=max_job_bytes,
        max_queue_jobs=max_queue,
        max_jobs=max_jobs,
        max_queues=max_queues,
        max_keys=max_keys,
        max_origins=max_origins,
        retention_seconds=retention,
        retention_jobs=retain_count,
        dead_retention_seconds=dead_retention,
        suspicion_budget=suspicion_budget,
        min_free_bytes=min_free,
    )
    return wiring.run_manager(
        ManagerSettings(
            listen=parse_address(listen),
            http=parse_optional_address(http, MANAGER_HTTP_PORT),
            http_hosts=parse_names(http_hosts),
            journal=journal,
            authkey=read_authkey(authkey_file),
            durability=durability,
            limits=limits,
            ballast_bytes=ballast_bytes,
            accept_loss=accept_loss,
            journal_must_exist=journal_must_exist,
            journal_marker=journal_marker,
            accept_network_filesystem=accept_network_filesystem,
            max_clock_jump=max_clock_jump,
            backups=backups,
            memory_limit=parse_memory_limit(str(memory_limit)),
            max_connections=max_connections,
            max_per_address=max_per_address or max_connections,
            max_buffered=max_buffered,
            strict_auth=strict_auth,
            authkey_file=find_authkey_file(authkey_file),
            role_keys=role_keys,
            tls=tls_of(ctx),
            announce=announce,
            log_format=log_format,
            log_level=log_level,
        )
    )
