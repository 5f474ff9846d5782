"""Decodes large frames command by command, with a bound on their elements.

An element of a list, such as an id of four bytes, takes a hundred times as long to decode as to send: a frame
of 40 MB with ten million ids took the manager two seconds, and 700 MB of memory.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from svc.domain.commands import AnyCommand, Command, Submit
from svc.domain.field_bounds import (
    CHUNK_JOBS_MAX,
    FRAME_COMMANDS_MAX,
    FRAME_ELEMENTS_MAX,
    SUBMIT_CHUNKS_MAX,
)
from svc.errors import BadRequest

_TOO_MANY = f"a request has at most {FRAME_ELEMENTS_MAX} jobs, ids, results and names"
#: A command of fewer bytes is decoded before its jobs are counted.
_COUNTED_BYTES = 1024 * 1024


class _RawRequest(msgspec.Struct, array_like=True):
    request: int
    commands: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=FRAME_COMMANDS_MAX)]


class _RawSubmit(msgspec.Struct, array_like=True, tag_field="verb", tag="submit"):
    origin: msgspec.Raw
    chunks: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=SUBMIT_CHUNKS_MAX)]


class _RawChunk(msgspec.Struct, array_like=True):
    first: msgspec.Raw
    terms: msgspec.Raw
    bodies: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=CHUNK_JOBS_MAX)]


_request_decoder = msgspec.msgpack.Decoder(_RawRequest)
_submit_decoder = msgspec.msgpack.Decoder(_RawSubmit)
_chunk_decoder = msgspec.msgpack.Decoder(_RawChunk)
_command_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)


def decode_large(frame: bytes | memoryview) -> tuple[int, list[AnyCommand]]:
    """Return (request id, commands).

    Raises:
        BadRequest: they have too many elements.
        msgspec.MsgspecError: it is no frame.
    """
    request = _request_decoder.decode(frame)
    commands: list[AnyCommand] = []
    left = FRAME_ELEMENTS_MAX
    for raw in request.commands:
        if len(memoryview(raw)) >= _COUNTED_BYTES:
            _check_jobs(raw, left)
        command = _command_decoder.decode(raw)
        left -= _elements(command)
        if left < 0:
            raise BadRequest(_TOO_MANY)
        commands.append(command)
    return request.request, commands


def _check_jobs(raw: msgspec.Raw, most: int) -> None:
    """Check, if a command is a submit, that it has *most* jobs at most, without decoding any.

    Raises:
        BadRequest: it has more.
    """
    try:
        chunks = _submit_decoder.decode(raw).chunks
    except msgspec.ValidationError:
        return  # it is another command
    for chunk in chunks:
        most -= len(_chunk_decoder.decode(chunk).bodies)
        if most < 0:
            raise BadRequest(_TOO_MANY)


def _elements(command: Command) -> int:
    """Return how many elements the lists of a command have, and its chunks' lists of jobs."""
    values = (getattr(command, name) for name in command.__struct_fields__)
    lists = [value for value in values if isinstance(value, list)]
    if isinstance(command, Submit):
        lists += [chunk.bodies for chunk in command.chunks]
    return sum(map(len, lists))
