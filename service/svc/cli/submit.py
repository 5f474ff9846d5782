"""`svc submit`: one job from the arguments, or a stream of jobs as NDJSON."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svc.cli.options import (
    Delay,
    JobTimeout,
    Json,
    MaxRss,
    Ndjson,
    Priority,
    Queue,
    Quiet,
    Strict,
    Wait,
    WaitTimeout,
    integer,
    named,
    seconds,
)
from svc.cli.output import Printer, report, tell
from svc.cli.results import print_outcomes
from svc.cli.waiting import AwaitedJobs
from svc.cli.wiring import open_client
from svc.declarations import CENTURY
from svc.domain.limits import NUMBER_MAX
from svc.domain.retry import DEFAULT_BACKOFF, DEFAULT_RETRIES, MAX_BACKOFF
from svc.errors import ConfigurationError, ServiceError
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.cli.input import NumberedJobs
    from svc.client.client import BrokerClient
    from svc.client.specs import JobSpec, Options

#: An argument that may be meant as a keyword argument of the task.
_NAMED = re.compile(r"[A-Za-z_]\w*=")
#: Exit code if some lines of the input were not accepted.
EXIT_PARTIAL = 7


def submit(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    settings: RemoteSettings,
    task: Annotated[
        str, typer.Argument(metavar="[TASK]", help="A registered name, or module:function.")
    ] = "",
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]...", help="Arguments: JSON if they parse as JSON, else text."),
    ] = None,
    kwargs: Annotated[
        str, typer.Option("--kwargs", metavar="JSON", help="Keyword arguments as a JSON object.")
    ] = "",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=@FILE", help="The bytes of a file as keyword argument; repeatable."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|-", help="Read NDJSON, one job a line; - is stdin.")
    ] = "",
    queue: Queue = "default",
    priority: Priority = 0,
    delay: Delay = 0.0,
    key: Annotated[
        str,
        typer.Option(
            "--key",
            callback=named,
            metavar="TEXT",
            help="The same key with the same task and arguments is the same job.",
        ),
    ] = "",
    retries: Annotated[
        int | None,
        typer.Option(
            "--retries",
            parser=integer(0, NUMBER_MAX),
            metavar="N",
            show_default=f"the task's, else {DEFAULT_RETRIES}",
            help="Attempts after the first.",
        ),
    ] = None,
    backoff: Annotated[
        float | None,
        typer.Option(
            "--backoff",
            parser=seconds("0", f"{MAX_BACKOFF:g}s"),
            metavar="SECONDS",
            show_default=f"the task's, else {DEFAULT_BACKOFF:g}",
            help="Wait at most so long before the first retry; doubled for each further one, up to an hour.",
        ),
    ] = None,
    job_timeout: JobTimeout = None,
    soft_timeout: Annotated[
        float | None,
        typer.Option(
            "--soft-timeout",
            parser=seconds("1ms", CENTURY),
            metavar="SECONDS",
            show_default="the task's, else none",
            help="Raise SoftTimeout in an attempt that takes longer.",
        ),
    ] = None,
    max_rss: MaxRss = None,
    strict: Strict = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = None,
    quiet: Quiet = False,
    json: Json = False,
    ndjson: Ndjson = False,
) -> int:
    """Submit jobs; print their ids or results.

    When an id is printed, its job is durable. A task that raises is tried again, 3 times if neither the task
    nor --retries says otherwise, after longer and longer waits. Put -- before arguments that begin with a
    dash. A bad line of --from is told on stderr with its number and the others are submitted; the exit code
    is then 7. An input without jobs is told there too, and is no error.
    """
    if bool(task) == bool(source):
        raise ConfigurationError("name either a TASK or a file of jobs with --from, and not both")
    if source and (kwargs or key or inputs):
        raise ConfigurationError(
            "--kwargs, --input and --key belong to one job; write them into the lines of --from"
        )
    for word in _options_among(ctx, args or ()):
        tell(f"svc: {word} stands behind -- and is an argument of the task; options go before it")
    for word in filter(_NAMED.match, args or ()):
        tell(
            f"svc: {word} is one text for the task; its keyword arguments are given as "
            """--kwargs '{"NAME": VALUE}'"""
        )
    from svc.client.specs import Options

    options = Options(
        *(queue, priority, delay, key, retries, backoff, job_timeout),
        strict=strict,
        soft_timeout=soft_timeout,
        max_rss=max_rss,
    )
    out = Printer(json=json, ndjson=ndjson, single=not source)
    with open_client(ctx, settings, settings.timeout) as client, out:
        submission = Submission(client, options, out, wait, wait_timeout, quiet)
        return (
            submission.stream(source) if source else submission.single(task, args or [], kwargs, inputs or [])
        )


def _options_among(ctx: typer.Context, args: Sequence[str]) -> list[str]:
    """Return those of the task's arguments that are spelt like options of this command."""
    options = {name for each in ctx.command.params for name in each.opts if name.startswith("--")}
    return [word for word in args if word.partition("=")[0] in options]


@dataclass(slots=True)
class _Accepted:
    """The number of jobs that were accepted, and the ids of those to wait for."""

    count: int = 0
    ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Submission:
    """The jobs to submit, their options, and the output to print."""

    client: BrokerClient
    options: Options
    out: Printer
    wait: bool
    wait_timeout: float | None
    quiet: bool
    prints: Callable[..., int] = print_outcomes

    def single(self, task: str, args: Sequence[str], kwargs: str, files: Sequence[str]) -> int:
        """Submit one job; return the exit code."""
        from svc.client.specs import JobSpec

        named = keywords(kwargs)
        if files:
            from svc.cli.files import inputs

            named |= inputs(files, named)
        return self.one(JobSpec(task, [argument(text) for text in args], named, self.options))

    def one(self, spec: JobSpec) -> int:
        """Submit the job in *spec*; return the exit code."""
        job = self.client.options(strict=self.options.strict).submit_spec(spec)
        if self.wait:
            return self._print_outcomes([job.id], named=False)
        self.out.item({"id": job.id}, job.id)
        return 0

    def stream(self, source: str) -> int:
        """Submit the lines of *source*; return the exit code."""
        from svc.cli.input import JobLines

        return self.each(source, lambda file: JobLines(file, self.options))

    def each(self, source: str, entries_of: Callable[[int], NumberedJobs]) -> int:
        """Submit the jobs that *entries_of* finds in the open file *source*; return the exit code."""
        from svc.cli.input import opened

        accepted = _Accepted()
        with opened(source) as file:
            refused = self._submit_lines(entries_of(file), accepted)
        if not (accepted.count or refused) and self.out.text:
            tell(f"svc: {'stdin' if source == '-' else source} has no jobs; there was nothing to submit")
        code = 0
        if accepted.ids:
            code = self._print_outcomes(accepted.ids, named=True)
        if not refused:
            return code
        codes = {error.exit_code for error in refused.values() if error.code != "bad_line"}
        return codes.pop() if not accepted.count and len(codes) == len(refused) == 1 else EXIT_PARTIAL

    def _print_outcomes(self, ids: Sequence[str], *, named: bool) -> int:
        with AwaitedJobs(self.client, ids, as_json=not self.out.text, quiet=self.quiet) as waiting:
            return self.prints(waiting.outcomes(self.wait_timeout), self.out, named=named)

    def _submit_lines(
        self, lines: NumberedJobs, accepted: _Accepted
    ) -> dict[type[ServiceError], ServiceError]:
        """Submit jobs; return an error of each type with which some were refused."""
        refused: dict[type[ServiceError], ServiceError] = {}
        try:
            for answers in self.client.options(strict=self.options.strict).submit_each(lines):
                for answer in answers:
                    number = lines.numbers.popleft()
                    if isinstance(answer, ServiceError):
                        refused[type(answer)] = answer
                        report(answer, as_json=not self.out.text, line=number)
                        continue
                    accepted.count += 1
                    if self.wait:
                        accepted.ids.append(answer.id)
                    else:
                        self.out.item({"line": number, "id": answer.id}, answer.id)
                self.out.flush()
        except ServiceError as error:
            were = "1 job was" if accepted.count == 1 else f"{accepted.count} jobs were"
            error.add_note(f"{were} accepted before")
            raise
        return refused


def argument(text: str) -> Any:
    """Return the value of *text* as JSON; if it is not JSON, *text* itself."""
    try:
        return json_module.loads(text)
    except (ValueError, RecursionError):
        return text


def keywords(text: str) -> dict[str, Any]:
    """Return the keyword arguments in a JSON object.

    Raises:
        ConfigurationError: *text* is not a JSON object.
    """
    found = argument(text) if text else {}
    if not isinstance(found, dict):
        raise ConfigurationError("--kwargs is not a JSON object; write for instance --kwargs '{\"top\": 10}'")
    return found
