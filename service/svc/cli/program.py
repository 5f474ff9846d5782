"""The program `svc`: its verbs, the source of their defaults, and its exit codes.

A verb's module is imported when the verb is used, so that `svc --help` and short commands answer at once.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from svc.cli import EXIT_INTERRUPTED
from svc.cli.options import with_settings
from svc.cli.output import report, report_usage, tell_lines
from svc.cli.verbs import PROGRAM, CliGroup, CliVerb
from svc.config_file import Known, config_defaults, find_config
from svc.domain.names import did_you_mean
from svc.errors import ServiceError

if TYPE_CHECKING:
    from svc.cli.wiring import Wiring

#: Exit code that no error class has; the others are `ServiceError.exit_code`.
EXIT_UNEXPECTED = 1
_HELP = {"help_option_names": ["-h", "--help"]}
#: How some verbs read their words: `svc health` passes them on, and the words behind a command are its own.
_CONTEXTS = {
    "status:health": {"ignore_unknown_options": True, "allow_extra_args": True},
    "run:run": {"allow_interspersed_args": False},
}


class LazyGroup(TyperGroup):
    """A group whose commands are made only when they are called."""

    group: ClassVar[CliGroup]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the base class's
        """Return the names in the order of the help."""
        return list(self.group.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Return the command, or None."""
        verb = self.group.verbs.get(cmd_name)
        if verb is None:
            return None
        return command_of(cmd_name, verb) if isinstance(verb, CliVerb) else group_of(verb, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and the words for it; the name may have two words."""
        pair = " ".join(args[:2])
        try:
            return super().resolve_command(ctx, [pair, *args[2:]] if pair in self.group.verbs else args)
        except typer.TyperException as error:
            error.message = f"{error.message.rstrip('.')}{self._meant(args[0])}"
            raise

    def _meant(self, word: str) -> str:
        """Return the end of a sentence that names the command that is most like *word*, or of that name."""
        verbs = self.group.verbs.items()
        groups = [name for name, verb in verbs if isinstance(verb, CliGroup) and word in verb.verbs]
        inside = " or ".join(f"{group} {word}" for group in groups)
        return f"; did you mean {inside}?" if inside else did_you_mean(word, self.group.verbs)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as above
        """Write the list of commands without making the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.group.verbs.items()])


def run(argv: Sequence[str], wiring: Wiring | None = None) -> int:
    """Run `svc` with *argv*; return the exit code. Errors are printed on stderr, in one line."""
    own = itertools.takewhile(lambda word: word != "--", argv)
    as_json = any(word in ("--json", "--ndjson") for word in own)
    try:
        code = program().main(list(argv), "svc", standalone_mode=False, obj=wiring)
        sys.stdout.flush()
    except typer.TyperException as error:
        report_usage(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line instead of a traceback
        if not isinstance(error, ServiceError):
            error = ServiceError(f"unexpected {type(error).__name__}: {error}")
        report(error, as_json=as_json)
        if os.environ.get("SVC_DEBUG"):
            tell_lines(traceback.format_exc())
        return error.exit_code
    return int(code or 0)


def program() -> Any:
    """Return the command `svc`."""
    return group_of(PROGRAM, "svc", _root)


def group_of(group: CliGroup, name: str, callback: Any = None) -> Any:
    """Return a group as a command; *callback* takes the group's own options."""
    app = typer.Typer(
        cls=type("Commands", (LazyGroup,), {"group": group}),
        name=name,
        help=group.summary,
        callback=callback or _nothing,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: half the time to the first line
        context_settings=_HELP,
    )
    return typer.main.get_command(app)


def command_of(name: str, verb: CliVerb) -> Any:
    """Return a verb as a command."""
    module, _, function = verb.runs.partition(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    own = _CONTEXTS.get(verb.runs, {})
    decorate = app.command(name, epilog=f"Example: {verb.example}", context_settings={**_HELP, **own})
    decorate(with_settings(getattr(importlib.import_module(f"svc.cli.{module}"), function)))
    return typer.main.get_command(app)


def known_settings(group: CliGroup) -> Known:
    """Return the settings of each command that `svc.toml` may have."""
    from svc import settings
    from svc.declarations import declared

    known: dict[str, frozenset[str] | Known] = {}
    for name, verb in group.verbs.items():
        if isinstance(verb, CliGroup):
            known[name] = known_settings(verb)
        elif verb.settings:
            found = declared(getattr(settings, verb.settings))
            known[name] = frozenset(key for key, setting in found.items() if setting.variable)
    return {name: inner for name, inner in known.items() if inner}


def _nothing() -> None:
    """Take no options."""


def _version(wanted: bool) -> None:
    if wanted:
        from svc.wire import RELEASE

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
    if (found := find_config(config)) is not None:
        ctx.default_map = config_defaults(found, known_settings(PROGRAM), config)


def _reader_gone() -> int:
    """End quietly if the reader of stdout has gone; output that is still buffered is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_UNEXPECTED
