"""The options of commands: those of settings, made from their declarations, and those that several share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from svc.config_file import Written, written_values
from svc.declarations import (
    CENTURY,
    Number,
    Setting,
    build,
    declared,
    parse_integer,
    parse_seconds,
    parse_size,
    written_size,
)
from svc.domain.limits import MEMORY_MAX, MEMORY_MIN, NUMBER_MAX
from svc.errors import ConfigurationError


class Parser:
    """Parses the value of an option for typer."""

    def __init__(self, read: Callable[[str], Any], *, several: bool = False) -> None:
        """Parse by *read*, which raises `ConfigurationError` if a text has no value; or *several* values."""
        self.read, self._several = read, several
        self.__name__ = "value"

    def __call__(self, text: object) -> Any:
        """Return the value.

        Raises:
            typer.BadParameter: there is none; typer adds the name of the option.
        """
        if isinstance(text, Written) and (fault := text.misfit(several=self._several)):
            raise typer.BadParameter(fault)
        try:
            return self.read(str(text))
        except ConfigurationError as error:
            raise typer.BadParameter(error.message) from None


def named(ctx: typer.Context, param: typer.CallbackParam, value: str) -> str:
    """Return the *value* of an option that names something, or its default.

    An empty one, as of an unset variable of a shell, would mean all of them.

    Raises:
        typer.BadParameter: an empty name is given.
    """
    given = ctx.get_parameter_source(param.name or "")
    if not value and given is not None and given.name != "DEFAULT":
        raise typer.BadParameter("it is empty; write a name, or leave the option out")
    return value


def seconds(least: str, most: str) -> Parser:
    """Return a parser of durations from *least* to *most*."""
    return Parser(Number(parse_seconds, least, most))


def integer(least: int, most: int) -> Parser:
    """Return a parser of whole numbers from *least* to *most*."""
    return Parser(Number(parse_integer, str(least), str(most)))


def size(least: int, most: int) -> Parser:
    """Return a parser of sizes such as `200MiB`, from *least* to *most* bytes."""
    return Parser(Number(parse_size, written_size(least), written_size(most)))


Queue = Annotated[
    str, typer.Option("--queue", callback=named, metavar="NAME", help="Queue in which the job waits.")
]
Priority = Annotated[
    int,
    typer.Option(
        "--priority",
        parser=integer(-NUMBER_MAX, NUMBER_MAX),
        metavar="N",
        help="Higher ones are taken first.",
    ),
]
Delay = Annotated[
    float,
    typer.Option(
        "--delay", parser=seconds("0", CENTURY), metavar="SECONDS", help="Not ready before this time."
    ),
]
JobTimeout = Annotated[
    float | None,
    typer.Option(
        "--job-timeout",
        parser=seconds("1ms", CENTURY),
        metavar="SECONDS",
        show_default="the task's, else none",
        help="Kill an attempt that takes longer.",
    ),
]
MaxRss = Annotated[
    int | None,
    typer.Option(
        "--max-rss",
        parser=size(MEMORY_MIN, MEMORY_MAX),
        metavar="SIZE",
        show_default="the task's, else none",
        help="Kill an attempt that takes more memory.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a task that no connected worker knows.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Do not tell how far the jobs are, nor why they wait.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ndjson = Annotated[bool, typer.Option("--ndjson", help="Print one JSON object a line.")]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--wait-timeout",
        parser=seconds("0", CENTURY),
        metavar="SECONDS",
        help="Time to wait for jobs to end; without it, for ever.",
    ),
]


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command as *function*, with an option for each setting in its parameter `settings`."""
    signature = inspect.signature(function, eval_str=True)
    if "settings" not in signature.parameters:
        return function
    kind = signature.parameters["settings"].annotation
    settings = declared(kind)

    def command(ctx: typer.Context, **values: Any) -> Any:
        of_settings = _built(ctx, kind, {name: values.pop(name) for name in settings})
        given = {"ctx": ctx} if "ctx" in signature.parameters else {}
        return function(settings=of_settings, **given, **values)

    own = [each for each in signature.parameters.values() if each.name not in {"ctx", "settings"}]
    own.insert(0, inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    parameters = [*own, *(_parameter(name, setting) for name, setting in settings.items())]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _built(ctx: typer.Context, kind: type[Any], values: dict[str, Any]) -> Any:
    """Return the settings of a command.

    Raises:
        ConfigurationError: they do not go together; the message names those that the settings file has.
    """
    try:
        return build(kind, values)
    except ConfigurationError as error:
        places = [value.place for value in written_values(ctx).values()]
        note = f"; set by {', '.join(places)}" if places else ""
        raise ConfigurationError(f"{error.message}{note}") from None


def _parameter(name: str, setting: Setting) -> inspect.Parameter:
    """Return a setting as typer takes an option."""
    flag, variable = f"--{name.replace('_', '-')}", f"SVC_{name.upper()}" if setting.variable else None
    form: dict[str, Any] = {"envvar": variable, "help": setting.help}
    kind: Any = bool
    if setting.metavar:
        kind = str | None
        form |= {
            "parser": Parser(setting.read, several="[,…]" in setting.metavar),
            "metavar": setting.metavar,
        }
        form |= {"show_default": setting.shown or True}
    annotation = Annotated[kind, typer.Option(flag, **form)]
    default = setting.default if setting.metavar else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
