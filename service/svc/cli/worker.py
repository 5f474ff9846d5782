"""`svc worker`: from flags to the settings of a worker that runs until it is stopped or drained."""

from __future__ import annotations

import stat
import sys
import sysconfig
from pathlib import Path
from typing import Annotated

import typer

from svc.cli.bounds import consumers as consumer_count
from svc.cli.bounds import seconds
from svc.cli.options import (
    Announce,
    AuthkeyFile,
    Http,
    HttpHosts,
    LogFormat,
    LogLevel,
    Manager,
    PickleKeyFile,
    Queues,
)
from svc.cli.output import tell
from svc.cli.tls import tls_of
from svc.cli.wiring import Wiring
from svc.errors import ConfigurationError
from svc.key_files import read_authkey, read_pickle_keys
from svc.settings import (
    DEFAULT_MANAGER,
    LOOPBACK,
    WORKER_HTTP_PORT,
    WorkerSettings,
    parse_address,
    parse_names,
    parse_optional_address,
)


def worker(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    manager: Manager = DEFAULT_MANAGER,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", envvar="SVC_TASKS", metavar="MODULE[,…]", help="Modules whose tasks this worker runs."
        ),
    ] = "",
    queues: Queues = "default",
    consumers: Annotated[
        str,
        typer.Option(
            "--consumers",
            envvar="SVC_CONSUMERS",
            parser=consumer_count(),
            metavar="auto|N",
            help="Consumer processes; auto: twice the CPUs.",
        ),
    ] = "auto",
    http: Http = f"{LOOPBACK}:{WORKER_HTTP_PORT}",
    http_hosts: HttpHosts = "",
    accept: Annotated[
        str,
        typer.Option(
            "--accept",
            envvar="SVC_ACCEPT",
            metavar="plain|pickle[,…]",
            help="Codecs of the jobs it runs; pickle runs any code of whoever has the pickle key.",
        ),
    ] = "plain",
    pickle_key_file: PickleKeyFile = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            envvar="SVC_GRACE",
            parser=seconds("0", "7d"),
            metavar="SECONDS",
            help="How long running jobs may go on after SIGTERM.",
        ),
    ] = 30.0,
    import_timeout: Annotated[
        float,
        typer.Option(
            "--import-timeout",
            envvar="SVC_IMPORT_TIMEOUT",
            parser=seconds("1s", "1d"),
            metavar="SECONDS",
            help="How long a consumer may take to import the task modules.",
        ),
    ] = 60.0,
    name: Annotated[
        str,
        typer.Option(
            "--name", envvar="SVC_NAME", metavar="NAME", help="The worker's name; else made from the host's."
        ),
    ] = "",
    authkey_file: AuthkeyFile = None,
    announce: Announce = None,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> int:
    """Run a worker, until it is stopped or drained.

    A worker is a supervisor and its consumer processes. It finds task modules in the working directory too. A
    second worker on a host serves its metrics at a free port, unless --http says where.
    """
    wiring: Wiring = ctx.obj
    _import_from_here()
    return wiring.run_worker(
        WorkerSettings(
            manager=parse_address(manager),
            http=parse_optional_address(http, WORKER_HTTP_PORT),
            http_moves=_is_default(ctx, "http"),
            http_hosts=parse_names(http_hosts),
            authkey=read_authkey(authkey_file),
            tasks=parse_names(tasks),
            queues=parse_names(queues),
            consumers=None if consumers == "auto" else int(consumers),
            accept=_codecs(accept),
            pickle_keys=read_pickle_keys(pickle_key_file),
            grace=grace,
            import_timeout=import_timeout,
            name=name,
            tls=tls_of(ctx),
            announce=announce,
            log_format=log_format,
            log_level=log_level,
        )
    )


def _is_default(ctx: typer.Context, option: str) -> bool:
    """Return whether nobody has set *option*: no flag, no variable, no settings file."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "DEFAULT"


def _import_from_here() -> None:
    """Find task modules in the working directory too, before installed ones.

    They stand behind the standard library: a user's `queue.py` or `types.py` must not hide its modules.
    """
    here = Path.cwd()
    if here.stat().st_mode & stat.S_IWOTH:
        tell(f"svc: every user can write {here}, so no task module is looked for there; use PYTHONPATH")
    elif str(here) not in sys.path and "" not in sys.path:
        sys.path.insert(_place_of_installed(), str(here))


def _place_of_installed() -> int:
    """Return the place in `sys.path` of the first folder behind the standard library."""
    library = sysconfig.get_path("stdlib")
    within = [place for place, folder in enumerate(sys.path) if folder in (library, f"{library}/lib-dynload")]
    return max(within, default=-1) + 1


def _codecs(text: str) -> tuple[str, ...]:
    from svc.codec import CODECS, PLAIN

    names = parse_names(text)
    for name in names:
        if name not in CODECS:
            raise ConfigurationError(f"there is no codec {name!r}; there are {', '.join(CODECS)}")
    return tuple(dict.fromkeys((PLAIN, *names)))
