"""`svc journal`: inspect a journal, verify it, back it up while it is in use, and restore a backup."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from svc.cli.options import Json
from svc.cli.output import size, span, table, tell, write, write_exact, write_json
from svc.cli.wiring import open_client
from svc.errors import JournalError
from svc.settings import JournalSettings, RemoteSettings

#: Seconds between two checks of the progress of a backup.
LOOK_SECONDS = 0.1


def info(settings: JournalSettings, json: Json = False) -> None:
    """Say what a journal holds.

    Its format, rows, events by kind, texts of errors, sizes and mark. No manager may have it
    open: exit code 6.
    """
    from svc.server.journal.inspection import info as inspect

    found = inspect(settings.journal)
    if json:
        write_json(found)
        return
    write(f"journal      {found.path}, format {found.version}, incarnation {found.incarnation}")
    write(f"rows         {found.rows}, from {found.first} to {found.newest}")
    write(
        "events       "
        + (", ".join(f"{count} {kind}" for kind, count in sorted(found.events.items())) or "none")
    )
    write(f"texts        {found.texts} of errors")
    write("sizes        " + ", ".join(f"{part} {size(count)}" for part, count in found.bytes.items()))
    mark = f"row {found.mark_sequence} of incarnation {found.mark_incarnation}"
    write("mark         " + (mark if found.mark_incarnation >= 0 else "none"))


def verify(settings: JournalSettings, json: Json = False) -> None:
    """Check that a journal is whole.

    SQLite's own structures, the checksum of each row, the texts of errors beside the rows, that a queue
    can be made of them, and that none is missing from the end. Nothing is changed. Exit code 1 if it is
    not whole, 6 if a manager has it open.
    """
    from svc.server.journal.inspection import verify as check

    checks = check(settings.journal)
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
            f"the journal {settings.journal} is not whole; keep a copy of its files, then restore a backup"
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

    The manager makes the copy in its --backups directory, between its other work, syncs and checks it; then
    its path on the manager's host is printed. It holds all that was accepted before the command began.
    """
    name = name or time.strftime("journal-%Y%m%dT%H%M%SZ.db", time.gmtime())
    with open_client(ctx, settings, settings.timeout) as client:
        while (copy := client.backup(name)).state in ("copying", "checking"):
            time.sleep(LOOK_SECONDS)
    if copy.state == "failed":
        raise JournalError(f"the backup {copy.path} was not made: {copy.error}")
    if json:
        write_json({"path": copy.path, "pages": copy.pages})
    else:
        write_exact(copy.path)


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
    settings: JournalSettings,
) -> None:
    """Make a journal from a backup.

    The backup is verified first. A journal that is there is never replaced: exit code 6. Jobs that were
    accepted after the backup are not in it; jobs that ended since then run again.
    """
    from svc.server.journal.inspection import restore as make

    make(backup, settings.journal)
    tell(f"{settings.journal} is restored from {backup}; start the manager on it")
