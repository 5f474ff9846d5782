"""The TLS options of every command that serves or calls a manager; each command gets them when it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from svc.settings import parse_tls
from svc.wire_tls import TlsFiles

Cert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", envvar="SVC_TLS_CERT", metavar="FILE", help="Our certificate (PEM); turns TLS 1.3 on."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--tls-key", envvar="SVC_TLS_KEY", metavar="FILE", help="Its private key (PEM)."),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca", envvar="SVC_TLS_CA", metavar="FILE", help="The CA of the other side's certificate (PEM)."
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--tls-name",
        envvar="SVC_TLS_NAME",
        metavar="NAME",
        help="The name in the manager's certificate; else the host of --manager.",
    ),
]
_SERVES = {"tls_cert": (Cert, None), "tls_key": (Key, None), "tls_ca": (Ca, None)}
_DIALS = {**_SERVES, "tls_name": (Name, "")}


def with_tls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* with the TLS options, if it has an option for a manager or an authkey.

    `tls_of` returns their values.
    """
    signature = inspect.signature(function, eval_str=True)
    if not {"manager", "authkey_file"} & signature.parameters.keys() or "ctx" not in signature.parameters:
        return function
    added = _DIALS if "manager" in signature.parameters else _SERVES

    def command(**values: Any) -> Any:
        files = [values.pop(name) for name in added]
        values["ctx"].meta["tls"] = parse_tls(*files)
        return function(**values)

    parameters = [
        *signature.parameters.values(),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in added.items()
        ),
    ]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def tls_of(ctx: typer.Context) -> TlsFiles | None:
    """Return the files in the TLS options of this command, or None."""
    files: TlsFiles | None = ctx.meta.get("tls")
    return files
