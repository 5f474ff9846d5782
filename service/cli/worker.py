"""`svc worker`: from flags to the settings of a worker that runs until it is stopped or drained."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import (
    Announce,
    AuthkeyFile,
    Http,
    HttpHosts,
    LogFormat,
    LogLevel,
    Manager,
    PickleKeyFile,
)
from service.cli.output import tell
from service.cli.tls import tls_of
from service.cli.wiring import Wiring
from service.errors import ConfigurationError
from service.key_files import read_authkey, read_pickle_keys
from service.settings import (
    DEFAULT_MANAGER,
    WorkerSettings,
    parse_address,
    parse_names,
    parse_optional_address,
    parse_seconds,
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
    queues: Annotated[
        str,
        typer.Option("--queues", envvar="SVC_QUEUES", metavar="NAME[,…]", help="Queues to take jobs from."),
    ] = "default",
    consumers: Annotated[
        str,
        typer.Option(
            "--consumers",
            envvar="SVC_CONSUMERS",
            metavar="auto|N",
            help="Consumer processes; auto: twice the CPUs.",
        ),
    ] = "auto",
    http: Http = "127.0.0.1:9101",
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
            parser=parse_seconds,
            metavar="SECONDS",
            help="How long running jobs may go on after SIGTERM.",
        ),
    ] = 30.0,
    import_timeout: Annotated[
        float,
        typer.Option(
            "--import-timeout",
            envvar="SVC_IMPORT_TIMEOUT",
            parser=parse_seconds,
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

    A worker is a supervisor and its consumer processes. It finds task modules in the working directory too.
    """
    wiring: Wiring = ctx.obj
    _import_from_here()
    return wiring.run_worker(
        WorkerSettings(
            manager=parse_address(manager),
            http=parse_optional_address(http),
            http_hosts=parse_names(http_hosts),
            authkey=read_authkey(authkey_file),
            tasks=parse_names(tasks),
            queues=parse_names(queues),
            consumers=_consumers(consumers),
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


def _import_from_here() -> None:
    """Find task modules in the working directory too, as `python` does: a script's path is its own folder."""
    here = Path.cwd()
    if here.stat().st_mode & stat.S_IWOTH:
        tell(f"svc: every user can write {here}, so no task module is looked for there; use PYTHONPATH")
    elif str(here) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(here))


def _consumers(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigurationError(f"--consumers is `auto` or a number from 1 on, not {text!r}")


def _codecs(text: str) -> tuple[str, ...]:
    from service.codec import CODECS, PLAIN

    names = parse_names(text)
    for name in names:
        if name not in CODECS:
            raise ConfigurationError(f"there is no codec {name!r}; there are {', '.join(CODECS)}")
    return tuple(dict.fromkeys((PLAIN, *names)))
