"""`svc journal`: inspect a journal, verify it, back it up while it is in use, restore, copy and move it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from svc.cli.children import ended_by_signals
from svc.cli.journal_view import copy_progress, info_lines
from svc.cli.options import Json
from svc.cli.output import facts, span, table, tell, write, write_exact, write_json
from svc.cli.wiring import open_client
from svc.errors import JournalError
from svc.journal_address import parse_journal
from svc.settings import JournalSettings, NewJournalSettings, NewStreamSettings, RemoteSettings

#: Seconds between two checks of the progress of a backup.
LOOK_SECONDS = 0.1


def info(settings: JournalSettings, json: Json = False) -> None:
    """Say what a journal holds.

    Of a file: its format, rows, events by kind, texts of errors, sizes and mark. No manager may have it
    open: exit code 6. Of a stream: its term, rows, events, frames, sizes, servers and the manager that serves
    it, if one does. All of the stream is read into `TMPDIR` for that.
    """
    from svc.app.journal_places import describe

    with ended_by_signals():
        found = describe(settings)
    if json:
        write_json(found)
    else:
        facts(info_lines(found))


def verify(settings: JournalSettings, json: Json = False) -> None:
    """Check that a journal is whole.

    Of a file: SQLite's own structures, the checksum of each row, the texts of errors beside the rows, that a
    queue can be made of them, and that none is missing from the end. Of a stream: its servers, the checksum
    and the place of each frame, the digests of its leaders, its rows, and that a queue can be made of them.
    Nothing is changed. Exit code 1 if it is not whole, 2 if there is no such file, 6 if a manager has
    that file open.
    """
    from svc.app.journal_places import verify as check

    with ended_by_signals():
        checks = check(settings)
    bad = [each for each in checks if not each.ok]
    if json:
        write_json({"ok": not bad, "checks": checks})
    else:
        table(
            checks,
            [
                ("CHECK", lambda e: e.name),
                ("OK", lambda e: "yes" if e.ok else "NO"),
                ("FOUND", lambda e: e.found),
            ],
            "",
            note="FOUND",
        )
    if bad:
        raise JournalError(
            f"the journal {settings.journal} is not whole; keep a copy of it, then restore a backup"
        )


def backup(
    ctx: typer.Context,
    settings: RemoteSettings,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="File name of the copy; else made from the time.")
    ] = "",
    json: Json = False,
) -> None:
    """Copy the journal of a running manager.

    The manager makes the copy in its --backups directory, between its other work, syncs and checks it. Then
    this prints the path of the copy, and on stderr the host that has it: of several managers, that of the
    leader. The copy holds all that was accepted before the command began.
    """
    name = name or time.strftime("journal-%Y%m%dT%H%M%SZ.db", time.gmtime())
    with open_client(ctx, settings, settings.timeout) as client:
        while (copy := client.backup(name)).state in ("copying", "checking"):
            time.sleep(LOOK_SECONDS)
    if copy.state == "failed":
        raise JournalError(f"the backup {copy.path} was not made: {copy.error}")
    if json:
        write_json({"path": copy.path, "pages": copy.pages, "host": copy.host})
    else:
        write_exact(copy.path)
        if copy.host:
            tell(f"the copy is on the manager's host, {copy.host}")


def accept_clock(
    ctx: typer.Context,
    settings: RemoteSettings,
    json: Json = False,
) -> None:
    """Set a manager's clock to its host's time of day.

    A manager that starts over a day away from its journal's time (`--max-clock-jump`) goes on from that, so
    that no result is forgotten and no delayed job runs for a clock that is wrong. If the host's time is
    right, this takes it over: jobs that are due then run, and jobs past their retention are forgotten.
    Connections are made anew.
    """
    with open_client(ctx, settings, settings.timeout) as client:
        before = client.stats()
        accepted = client.accept_clock()
        while accepted and client.stats().incarnation == before.incarnation:
            time.sleep(LOOK_SECONDS)
    offset = before.clock_offset if accepted else 0.0
    if json:
        write_json({"offset_seconds": offset})
    elif accepted:
        write(f"the clock is set {'forward' if offset > 0 else 'back'} by {span(offset)}")
    else:
        write("the clock is right already")


def restore(
    backup: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="The copy, as `svc journal backup` made it.")
    ],
    settings: NewJournalSettings,
) -> None:
    """Make a journal from a backup.

    In a file or in a new stream. The backup is verified first. A journal that is there is never replaced:
    exit code 6. Jobs that were accepted after the backup are not in it; jobs that ended since then run again.
    """
    from svc.app.journal_places import restore as make

    with ended_by_signals():
        make(settings, backup)
    tell(f"{settings.journal} is restored from {backup}; start the manager on it")


def copy(
    settings: NewStreamSettings,
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="The journal: a file, or the stream tls://HOST:PORT[,…]/NAME."),
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="The new place, where no journal may be.")],
    move: Annotated[
        bool, typer.Option("--move", help="Mark FROM as moved, so that no manager serves it any more.")
    ] = False,
    accept_moved: Annotated[
        bool, typer.Option("--accept-moved", help="Copy a journal that was moved elsewhere before.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy a journal to another place, or move it there.

    Each of the two is a file or a stream of NATS. The command ends with exit code 6 if a manager serves FROM,
    or if TO was used before. At the end it reads TO back and compares the number of rows, a digest of all,
    and the states of all jobs. No manager serves TO before that. If the copy is interrupted, the same command
    goes on with it. After --move, a manager that is started on FROM ends with exit code 6 and says where the
    journal went. A stream is first read into `TMPDIR`. The output of tasks is not copied.
    """
    from svc.app.journal_places import copy as make

    with ended_by_signals(), copy_progress() as progress:
        report = make(
            settings,
            parse_journal(source),
            parse_journal(target),
            move=move,
            accept_moved=accept_moved,
            progress=progress,
        )
    if json:
        write_json(report)
        return
    jobs = ", ".join(f"{count} {state}" for state, count in report.contents.jobs().items()) or "none"
    facts(
        [
            ("rows", f"{report.contents.rows}, the newest is {report.contents.newest}"),
            ("jobs", jobs),
            ("digest", report.contents.digest),
        ]
    )
    if move:
        tell(f"{report.source} is moved to {report.target}; start the manager there")
    else:
        tell(f"{report.target} is a copy of {report.source}; let managers run on one of them alone")
