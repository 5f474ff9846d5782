"""The options of commands: those of settings, made from their declarations, and those that several share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from svc.declarations import CENTURY, Number, Setting, build, declared, parse_integer, parse_seconds
from svc.errors import ConfigurationError


class Parser:
    """Parses the value of an option for typer."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        """Parse by *read*, which raises `ConfigurationError` if a text has no value."""
        self.read = read
        self.__name__ = "value"

    def __call__(self, text: object) -> Any:
        """Return the value.

        Raises:
            typer.BadParameter: there is none; typer adds the name of the option.
        """
        try:
            return self.read(str(text))
        except ConfigurationError as error:
            raise typer.BadParameter(error.message) from None


def seconds(least: str, most: str) -> Parser:
    """Return a parser of durations from *least* to *most*."""
    return Parser(Number(parse_seconds, least, most))


def integer(least: int, most: int) -> Parser:
    """Return a parser of whole numbers from *least* to *most*."""
    return Parser(Number(parse_integer, str(least), str(most)))


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

    def command(**values: Any) -> Any:
        of_settings = {name: values.pop(name) for name in settings}
        return function(settings=build(kind, of_settings), **values)

    own = [each for each in signature.parameters.values() if each.name != "settings"]
    parameters = [*own, *(_parameter(name, setting) for name, setting in settings.items())]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(name: str, setting: Setting) -> inspect.Parameter:
    """Return a setting as typer takes an option."""
    flag, variable = f"--{name.replace('_', '-')}", f"SVC_{name.upper()}" if setting.variable else None
    form: dict[str, Any] = {"envvar": variable, "help": setting.help}
    kind: Any = bool
    if setting.metavar:
        kind = str | None
        form |= {"parser": Parser(setting.read), "metavar": setting.metavar}
        form |= {"show_default": setting.shown or True}
    annotation = Annotated[kind, typer.Option(flag, **form)]
    default = setting.default if setting.metavar else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
