"""The arguments and the result of a job, for `svc jobs show`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from svc import codec
from svc.cli.output import size
from svc.domain.job_view import Content, JobView
from svc.errors import CodecError, ServiceError
from svc.large import LargeReference, replaced

if TYPE_CHECKING:
    from svc.client.client import BrokerClient

#: Characters of arguments, or of a result, in the text for people.
_SHOWN_MAX = 400
#: Last lines of output that are shown of a job, and the bytes in which they are looked for.
LINES_MAX = 10
_TAIL_BYTES = 8 * 1024


def arguments_text(job: JobView) -> str:
    """Return the arguments of a job as in a call, shortened."""
    content = job.content
    if content is None or content.hidden:
        return "(hidden by the manager)" if content is not None else ""
    found = _arguments(job, content)
    if isinstance(found, str):
        return f"({found})"
    args, kwargs = found
    named = [f"{name}={value!r}" for name, value in kwargs.items()]
    return _short(", ".join([*map(repr, args), *named]), "()")


def result_text(job: JobView) -> str:
    """Return the result of a job that succeeded, shortened."""
    content = job.content
    if content is None or content.hidden or job.state != "succeeded":
        return ""
    try:
        return _short(repr(_result(content)))
    except CodecError as error:
        return f"({error.message})"


def content_document(job: JobView) -> dict[str, Any] | None:
    """Return the arguments and the result of a job by name; a value is None if it cannot be shown."""
    content = job.content
    if content is None:
        return None
    found = None if content.hidden else _arguments(job, content)
    args, kwargs = (None, None) if found is None or isinstance(found, str) else replaced(*found, _shown)
    document: dict[str, Any] = {
        "args": args,
        "kwargs": kwargs,
        "arguments_bytes": content.arguments_bytes,
        "result": None,
        "result_bytes": content.result_bytes,
        "hidden": content.hidden,
    }
    if job.state == "succeeded" and not content.hidden:
        with suppress(CodecError):  # the size says that there is one
            document["result"] = _result(content)
    return document


def last_lines(client: BrokerClient, job: JobView) -> list[str]:
    """Return the last lines that the last attempt at a job has printed; none if that cannot be told."""
    tail, cursor, attempt, more = b"", 0, 0, True
    with suppress(ServiceError):  # an older manager, or a key that may not read output
        while more:
            page = client.logs(job.id, attempt=attempt, cursor=cursor)
            cursor, more = page.cursor, page.more and bool(page.pieces)
            attempt = attempt or max(page.attempts, default=0)
            tail = (tail + b"".join(piece.data for piece in page.pieces))[-_TAIL_BYTES:]
    return tail.decode(errors="backslashreplace").splitlines()[-LINES_MAX:]


def _arguments(job: JobView, content: Content) -> tuple[list[Any], dict[str, Any]] | str:
    """Return the arguments, or the reason why they cannot be shown."""
    if not content.arguments:
        return f"{size(content.arguments_bytes)}, not shown" if content.arguments_bytes else "none"
    if job.codec not in {codec.PLAIN, codec.TYPED, codec.LARGE}:
        return f"{size(content.arguments_bytes)} of the codec {job.codec}, not opened"
    try:
        return codec.decode_arguments(job.codec, content.arguments, (codec.PLAIN,))
    except CodecError as error:
        return error.message


def _shown(value: object) -> object:
    return repr(value) if isinstance(value, LargeReference) else value


def _result(content: Content) -> Any:
    """Return the result.

    Raises:
        CodecError: it cannot be shown.
    """
    if content.result_bytes and not content.result:
        raise CodecError(f"{size(content.result_bytes)}: `svc results ID --output FILE` has all")
    return codec.decode_result(content.result)


def _short(text: str, instead: str = "") -> str:
    return text[:_SHOWN_MAX] + f"… ({len(text)} characters)" if len(text) > _SHOWN_MAX else text or instead
