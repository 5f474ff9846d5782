r"""Makes text from strangers safe to show: it cannot control a terminal, nor look like another line.

Jobs, workers, managers and files contain such text: names, results, errors. A terminal obeys control
characters, changes the direction of text at others, and does not show some at all. This module shows all of
them as escapes, in Python's own form (`\x1b`, `\u202e`). Other text is unchanged, backslashes included.
"""

from __future__ import annotations

#: Invisible characters that `str.isprintable` accepts: Unicode's Default_Ignorable_Code_Point
#: (DerivedCoreProperties.txt of Unicode 15), without those of them that are not printable anyway.
_INVISIBLE = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)
_UNSEEN = frozenset(chr(code) for first, last in _INVISIBLE for code in range(first, last + 1))


def printable_line(text: str) -> str:
    """Return *text* as part of one line: control characters, line ends and invisible ones are escaped."""
    return text if _is_plain(text) else "".join(map(_shown, text))


def printable_text(text: str) -> str:
    """Return *text* as a block: like `printable_line`, but line ends and tabs stay."""
    if _is_plain(text):
        return text
    return "".join(each if each in "\n\t" else _shown(each) for each in text)


def printable_json(text: str) -> str:
    r"""Return the JSON document *text* with the same content; unprintable characters become `\uXXXX`.

    JSON itself escapes only U+0000 to U+001F, and line ends are part of its layout.
    """
    if _is_plain(text):
        return text
    # Line by line, because most lines are plain, and a look at each character takes long.
    return "\n".join(
        line if _is_plain(line) else "".join(map(_json_shown, line)) for line in text.split("\n")
    )


def _json_shown(character: str) -> str:
    return character if _is_visible(character) else _json_escape(character)


def _is_plain(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(text))


def _is_visible(character: str) -> bool:
    return character.isprintable() and character not in _UNSEEN


def _shown(character: str) -> str:
    if _is_visible(character):
        return character
    if character in "\n\r\t":
        return repr(character)[1:-1]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    # JSON has no single escape for larger codes: it needs the two surrogates of UTF-16.
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
