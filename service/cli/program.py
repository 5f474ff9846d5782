"""The program `svc`: its verbs, where their defaults come from, and how it ends.

A verb's module is imported when the verb is used, so that `svc --help` and short commands answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup

from service.cli.output import report, report_usage
from service.cli.tls import with_tls
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.cli.wiring import Wiring

#: Exit codes that no error class carries; the others are `ServiceError.exit_code`.
EXIT_UNEXPECTED, EXIT_INTERRUPTED = 1, 130
#: The settings file where none is named, if it is there.
CONFIG_FILE = "svc.toml"
_HELP = {"help_option_names": ["-h", "--help"]}


class Verb(NamedTuple):
    """One command: what runs it (`module:function` in this package), its line in the list, its example."""

    runs: str
    summary: str
    example: str


class LazyGroup(TyperGroup):
    """Commands of which each is made when it is called."""

    verbs: ClassVar[Mapping[str, Verb | type[LazyGroup]]] = {}
    summary: ClassVar[str] = ""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the base class's
        """Return the names in the order of the help."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Return the command, or None."""
        verb = self.verbs.get(cmd_name)
        if verb is None:
            return None
        return command_of(cmd_name, verb) if isinstance(verb, Verb) else group_of(verb, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as above
        """Write the list of commands without making them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.verbs.items()])


class JobsGroup(LazyGroup):
    """`svc jobs`."""

    summary = "Look at jobs, cancel or requeue them."
    verbs: ClassVar = {
        "list": Verb("jobs:list_jobs", "List jobs, newest first.", "svc jobs list --state dead --queue mail"),
        "show": Verb("jobs:show", "Show all there is to know of jobs.", "svc jobs show k3v9x0m2q7w1z-0"),
        "cancel": Verb("jobs:cancel", "Cancel jobs that wait.", "svc jobs cancel k3v9x0m2q7w1z-0"),
        "requeue": Verb("jobs:requeue", "Make dead jobs ready again.", "svc jobs requeue --queue mail"),
    }


class AuthGroup(LazyGroup):
    """`svc auth`."""

    summary = "Make keys and certificates."
    verbs: ClassVar = {
        "generate": Verb(
            "auth:generate",
            "Make a new authkey, or keys that may do less.",
            "svc auth generate --output secrets/svc_authkey",
        ),
        "ca": Verb(
            "authority:ca",
            "Make a small CA, a certificate for the manager and one for its workers and clients.",
            "svc auth ca secrets/tls --names queue-host,10.0.0.7",
        ),
    }


class JournalGroup(LazyGroup):
    """`svc journal`."""

    summary = "Look at a journal, check it, back it up, restore it."
    verbs: ClassVar = {
        "info": Verb("journal:info", "Say what a journal holds.", "svc journal info --journal svc.journal"),
        "verify": Verb(
            "journal:verify", "Check that a journal is whole.", "svc journal verify --journal svc.journal"
        ),
        "backup": Verb("journal:backup", "Copy the journal of a running manager.", "svc journal backup"),
        "restore": Verb(
            "journal:restore",
            "Make a journal from a backup.",
            "svc journal restore backups/monday.db --journal svc.journal",
        ),
    }


class Program(LazyGroup):
    """`svc`."""

    summary = "Python's own multiprocessing queue as a durable service."
    verbs: ClassVar = {
        "demo": Verb("demo:demo", "Run the textbook program on svc, end to end.", "svc demo"),
        "dev": Verb("dev:dev", "Run a manager and a worker in this terminal.", "svc dev --tasks mytasks"),
        "manager": Verb(
            "serve:manager",
            "Run the manager, until it is stopped.",
            "svc manager --listen 0.0.0.0:7077 --journal /var/lib/svc/svc.journal",
        ),
        "worker": Verb(
            "serve:worker",
            "Run a worker, until it is stopped or drained.",
            "svc worker --manager queue-host:7077 --tasks mytasks --consumers 4",
        ),
        "submit": Verb(
            "submit:submit", "Submit jobs; print their ids or results.", "svc submit mytasks:add 2 3 --wait"
        ),
        "results": Verb("results:results", "Print results as the jobs end.", "svc results --follow --ndjson"),
        "jobs": JobsGroup,
        "queues": Verb("state:queues", "List queues, their counts and their ages.", "svc queues --json"),
        "workers": Verb("state:workers", "List the connected workers.", "svc workers"),
        "status": Verb("state:status", "Show the whole service at a glance.", "svc status --json"),
        "drain": Verb("drain:drain", "Let every consumer finish, and end.", "svc drain --timeout 10m"),
        "resume": Verb("drain:resume", "End a drain: consumers get jobs again.", "svc resume"),
        "metrics": Verb("state:metrics", "Print or serve the manager's metrics.", "svc metrics"),
        "health": Verb(
            "state:health", "Ask whether a manager or worker is ready.", "svc health --http 127.0.0.1:9101"
        ),
        "tunnel": Verb(
            "tunnel:tunnel",
            "Let plain clients on this host reach a manager that asks for TLS.",
            "svc tunnel --listen 127.0.0.1:7077 --manager queue-host:7077",
        ),
        "journal": JournalGroup,
        "auth": AuthGroup,
    }


def run(argv: Sequence[str], wiring: Wiring | None = None) -> int:
    """Run `svc` with *argv*; return the exit code. Errors are told on stderr, in one line."""
    as_json = any(word in ("--json", "--ndjson") for word in argv)
    try:
        code = program().main(list(argv), "svc", standalone_mode=False, obj=wiring)
        sys.stdout.flush()
    except ServiceError as error:
        report(error, as_json=as_json)
        _debug()
        return error.exit_code
    except typer.TyperException as error:
        report_usage(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line instead of a traceback
        report(ServiceError(f"unexpected {type(error).__name__}: {error}"), as_json=as_json)
        _debug()
        return EXIT_UNEXPECTED
    return int(code or 0)


def program() -> Any:
    """Return the command `svc`."""
    return group_of(Program, "svc", _root)


def group_of(kind: type[LazyGroup], name: str, callback: Any = None) -> Any:
    """Return a group as a command; *callback* takes its own options."""
    app = typer.Typer(
        cls=kind,
        name=name,
        help=kind.summary,
        callback=callback or _nothing,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: half the time to the first line
        context_settings=_HELP,
    )
    return typer.main.get_command(app)


def command_of(name: str, verb: Verb) -> Any:
    """Return a verb as a command."""
    module, _, function = verb.runs.partition(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    own = {"ignore_unknown_options": True, "allow_extra_args": True} if verb.runs == "state:health" else {}
    decorate = app.command(name, epilog=f"Example: {verb.example}", context_settings={**_HELP, **own})
    decorate(with_tls(getattr(importlib.import_module(f"service.cli.{module}"), function)))
    return typer.main.get_command(app)


def _nothing() -> None:
    """Take no options."""


def _version(wanted: bool) -> None:
    if wanted:
        from service.wire import RELEASE

        sys.stdout.write(f"svc {RELEASE}\n")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="SVC_CONFIG",
            metavar="FILE",
            help="Settings file; else ./svc.toml if there is one.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Python's own multiprocessing queue as a durable service.

    Settings come from flags, else from SVC_* variables, else from svc.toml.
    """
    if config or Path(CONFIG_FILE).exists():
        from service.settings import SETTINGS, config_defaults, load_config

        ctx.default_map = config_defaults(load_config(config or Path(CONFIG_FILE)), SETTINGS)
    if ctx.obj is None:
        from service.cli.wiring import wiring_of_app

        ctx.obj = wiring_of_app()


def _debug() -> None:
    if os.environ.get("SVC_DEBUG"):
        import traceback

        traceback.print_exc()


def _reader_gone() -> int:
    """End quietly when nobody reads stdout any more; what is still buffered has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_UNEXPECTED
