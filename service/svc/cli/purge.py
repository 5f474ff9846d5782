"""`svc jobs purge`: remove jobs that have ended."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from svc.cli.no_match import none_of
from svc.cli.options import Json, Parser, named, seconds
from svc.cli.output import span, tell, write, write_json
from svc.cli.wiring import open_client
from svc.declarations import CENTURY
from svc.domain.lifecycle import FINISHED
from svc.errors import ConfigurationError, Conflict
from svc.setting_kinds import parse_word
from svc.settings import RemoteSettings

#: Exit code if some of the jobs that were named have not ended, or are not known.
EXIT_PARTIAL = 7
_STATES = tuple(state.word for state in FINISHED)


def purge(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs that have ended.")
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            parser=Parser(partial(parse_word, words=_STATES)),
            metavar="|".join(_STATES),
            help="In place of ids: jobs that have ended so. May be given several times.",
        ),
    ] = None,
    queue: Annotated[
        str,
        typer.Option("--queue", callback=named, metavar="NAME", help="In place of ids: jobs of this queue."),
    ] = "",
    task: Annotated[
        str,
        typer.Option("--task", callback=named, metavar="TASK", help="In place of ids: jobs of this task."),
    ] = "",
    older: Annotated[
        float,
        typer.Option(
            "--older-than",
            parser=seconds("0", CENTURY),
            metavar="SECONDS",
            help="In place of ids: jobs that ended so long ago.",
        ),
    ] = 0.0,
    every: Annotated[bool, typer.Option("--all", help="In place of ids: all jobs that have ended.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say how many jobs it would remove.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    json: Json = False,
) -> int:
    """Remove jobs that have ended.

    Their retention need not have passed. They are unknown from then on, and their keys are free. No job that
    waits or runs is removed. Several conditions have to hold together. On a terminal it asks first. Exit
    code 6 if none of the ids names a job that has ended, 7 if some do not.
    """
    conditions = bool(states or queue or task or older)
    if bool(ids) + conditions + every != 1:
        raise ConfigurationError(
            "name either ids of jobs, or conditions (--state, --queue, --task, --older-than), or --all"
        )
    selected = list(dict.fromkeys(ids or ()))
    with open_client(ctx, settings, settings.timeout) as client:
        remove = partial(
            client.purge,
            selected or None,
            states=states or None,
            queue=queue,
            task=task,
            older_than=older,
            every=every,
        )
        if not (yes or dry) and sys.stdin.isatty():
            named_by = (("of the queue", queue), ("of the task", task), ("older than", older and span(older)))
            which = "".join(f" {words} {value}" for words, value in named_by if value)
            if not _confirmed(remove(dry_run=True), " or ".join(states or ()), which):
                tell("svc: nothing was removed")
                raise typer.Abort
        count = remove(dry_run=dry)
        if (queue or task) and not (count or json):
            tell(none_of(client, "no matching ended job", queue, task))
    return _told(count, len(selected), dry=dry, json=json)


def _confirmed(count: int, kind: str, which: str) -> bool:
    """Ask whether to go on; there is nothing to ask if no job matches."""
    if not count:
        return True
    jobs = f"{count:,} {kind}".rstrip() + (" job" if count == 1 else " jobs")
    tell(f"remove {jobs}{which} for good? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(count: int, asked: int, *, dry: bool, json: bool) -> int:
    """Say how many jobs were removed; return the exit code."""
    why = "the others have not ended, or are not known"
    if asked and not count:
        if asked == 1:
            raise Conflict("the job cannot be removed: it has not ended, or is not known")
        raise Conflict(f"none of the {asked} jobs can be removed: none has ended, or none is known")
    if json:
        write_json({"would_purge" if dry else "purged": count, "left_alone": max(0, asked - count)})
    else:
        done = "would purge" if dry else "purged"
        write(f"{done} {count} of {asked}; {why}" if count < asked else f"{done} {count}")
    return EXIT_PARTIAL if count < asked else 0
