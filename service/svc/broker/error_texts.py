"""Long texts of errors, which journals store apart from their events: equal texts once, and compressed.

A replay needs no texts, and 100,000 jobs with four tracebacks of 16 KiB each have 6 GiB of them. So the event
of a failed attempt is stored without its long texts, and refers to them by digests. They are put back if the
event is read by its number.

A traceback ends with the message of the error, which often differs from job to job. The event keeps the
message, so the traceback is stored without it, and is then equal for all jobs that fail at the same place.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from svc.domain import events as e

#: A text of this many bytes or more is stored apart; to find one again costs as much as to write some hundred
#: bytes.
LONG_BYTES: Final = 512
#: The most bytes of new texts in one commit that are compressed (about 10 ms at zlib's lowest level). The
#: others are stored uncompressed, so that the failures in one large request do not delay the manager.
COMPRESSED_BYTES: Final = 1024 * 1024
_DIGEST_BYTES: Final = 16
_LEVEL: Final = 1

#: Texts by their digests.
Texts = dict[bytes, bytes]
#: A stored text: whether it is compressed, and its bytes.
Packed = tuple[bool, bytes]


def set_aside(
    records: Sequence[tuple[int, e.AnyEvent]],
) -> tuple[Sequence[tuple[int, e.AnyEvent]], dict[int, Texts]]:
    """Return *records* without long texts, and those texts by the numbers of their events."""
    texts: dict[int, Texts] = {}
    short = []
    for number, event in records:
        if isinstance(event, e.Failed):
            event, long = _without_texts(event)  # noqa: PLW2901 - the shorter event replaces it
            if long:
                texts[number] = long
        short.append((number, event))
    return short, texts


def put_back(event: e.AnyEvent, text_of: Callable[[bytes], bytes]) -> e.AnyEvent:
    """Return *event* as it was before `set_aside`; *text_of* finds a text by its digest.

    A text that *text_of* refuses with a ValueError is replaced by the reason: no job depends on it.
    """
    if not isinstance(event, e.Failed) or event.aside is None:
        return event
    aside, error = event.aside, event.error
    traceback, exception = error.traceback, error.exception
    try:
        if aside.exception:
            exception = text_of(aside.exception)
        if aside.traceback:
            traceback = _with_message(text_of(aside.traceback).decode(), aside.cut, error.message)
    except ValueError as damage:
        traceback = f"<{damage}; run `svc journal verify`>\n"
    whole = msgspec.structs.replace(error, traceback=traceback, exception=exception)
    return msgspec.structs.replace(event, error=whole, aside=None)


def digests_of(event: e.AnyEvent) -> set[bytes]:
    """Return the digests of the texts that are stored apart from *event*."""
    aside = event.aside if isinstance(event, e.Failed) else None
    return set() if aside is None else {digest for digest in (aside.traceback, aside.exception) if digest}


class Packing:
    """Packs the new texts of one commit."""

    def __init__(self) -> None:
        """Begin with the first text."""
        self._left = COMPRESSED_BYTES

    def pack(self, text: bytes) -> Packed:
        """Return *text* as it is to be stored: compressed if there is time and if that makes it shorter."""
        if len(text) <= self._left:
            self._left -= len(text)
            if len(shorter := zlib.compress(text, _LEVEL)) < len(text):
                return True, shorter
        return False, text


def unpack(digest: bytes, packed: Packed) -> bytes:
    """Return the text that was packed.

    Raises:
        ValueError: the text is damaged.
    """
    compressed, content = packed
    try:
        text = zlib.decompress(content) if compressed else content
    except zlib.error as error:
        raise ValueError(f"the text of its error is damaged ({error})") from None
    if _digest(text) != digest:
        raise ValueError("the text of its error is another one")
    return text


def _without_texts(event: e.Failed) -> tuple[e.Failed, Texts]:
    error, texts = event.error, Texts()
    traceback, exception, cut = error.traceback, error.exception, 0
    kept_traceback = kept_exception = b""
    if len(traceback) >= LONG_BYTES:
        cut, text = _without_message(traceback, error.message)
        kept_traceback = _keep(texts, text.encode())
        traceback = ""
    if len(exception) >= LONG_BYTES:
        kept_exception = _keep(texts, exception)
        exception = b""
    if not texts:
        return event, texts
    short = msgspec.structs.replace(error, traceback=traceback, exception=exception)
    aside = e.Aside(kept_traceback, cut, kept_exception)
    return msgspec.structs.replace(event, error=short, aside=aside), texts


def _without_message(traceback: str, message: str) -> tuple[int, str]:
    """Return the position of *message* at the end of *traceback*, or 0, and the traceback without it."""
    place = traceback.rfind(message) if message else 0
    end = traceback[place + len(message) :]
    return (place, traceback[:place] + end) if place > 0 and not end.strip() else (0, traceback)


def _with_message(text: str, cut: int, message: str) -> str:
    return text[:cut] + message + text[cut:] if cut else text


def _keep(texts: Texts, text: bytes) -> bytes:
    digest = _digest(text)
    texts[digest] = text
    return digest


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()
