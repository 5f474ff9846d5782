"""The options that several commands share, each declared once. An option with a variable is a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from svc.cli.bounds import CENTURY, seconds

Manager = Annotated[
    str, typer.Option("--manager", envvar="SVC_MANAGER", metavar="HOST:PORT", help="The manager's address.")
]
AuthkeyFile = Annotated[
    Path | None,
    typer.Option(
        "--authkey-file",
        envvar="SVC_AUTHKEY_FILE",
        metavar="FILE",
        help="File with the shared secret; else /run/secrets/svc_authkey.",
    ),
]
PickleKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--pickle-key-file",
        envvar="SVC_PICKLE_KEY_FILE",
        metavar="FILE",
        help="Key shared with submitters and never with the manager; else /run/secrets/svc_pickle_key.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        envvar="SVC_TIMEOUT",
        parser=seconds("0", "1d"),
        metavar="SECONDS",
        help="How long the manager may take to answer.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ndjson = Annotated[bool, typer.Option("--ndjson", help="Print one JSON object a line.")]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--wait-timeout",
        parser=seconds("0", CENTURY),
        metavar="SECONDS",
        help="How long to wait for jobs to end; without it, for ever.",
    ),
]
Http = Annotated[
    str,
    typer.Option(
        "--http", envvar="SVC_HTTP", metavar="HOST:PORT", help="Where to serve metrics and health, or `off`."
    ),
]
HttpHosts = Annotated[
    str,
    typer.Option(
        "--http-hosts",
        envvar="SVC_HTTP_HOSTS",
        metavar="NAME[,…]",
        help="Names with a dot by which that is asked for, or `*` for any.",
    ),
]
Announce = Annotated[
    Path | None,
    typer.Option(
        "--announce",
        metavar="FILE",
        help="Write the bound addresses there as JSON once they serve; of use with port 0.",
    ),
]
LogFormat = Annotated[
    Literal["auto", "json", "console"],
    typer.Option("--log-format", envvar="SVC_LOG_FORMAT", help="How log lines look."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", envvar="SVC_LOG_LEVEL", help="What is logged."),
]
Queues = Annotated[
    str, typer.Option("--queues", envvar="SVC_QUEUES", metavar="NAME[,…]", help="Queues to take jobs from.")
]
