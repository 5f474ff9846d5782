"""`svc worker`: from flags to the settings of a worker that runs until it is stopped or drained."""

from __future__ import annotations

import stat
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import typer

from svc.cli.output import tell
from svc.cli.wiring import wiring_of
from svc.errors import ConfigurationError
from svc.settings import WorkerSettings


def worker(ctx: typer.Context, settings: WorkerSettings) -> int:
    """Run a worker, until it is stopped or drained.

    A worker is a supervisor and its consumer processes. It finds task modules in the working directory too. A
    second worker on a host serves its metrics at a free port, unless --http names one.
    """
    if not settings.until_empty and _source(ctx, "idle") == "COMMANDLINE":
        raise ConfigurationError(
            "--idle is the time after which --until-empty ends the worker; add that flag"
        )
    _import_from_here()
    # Nobody has set it: no flag, no variable, no settings file.
    http_moves = _source(ctx, "http") == "DEFAULT"
    return wiring_of(ctx).run_worker(replace(settings, http_moves=http_moves))


def _source(ctx: typer.Context, option: str) -> str:
    """Return where the value of *option* is from, in typer's words."""
    source = ctx.get_parameter_source(option)
    return source.name if source is not None else ""


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
