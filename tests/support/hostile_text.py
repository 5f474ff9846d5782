"""Text that a job, a worker or a manager could use to deceive a person at a terminal."""

from __future__ import annotations

import unicodedata

#: The effect of each text on a terminal that gets it unescaped.
HOSTILE = {
    "clears the screen": "\x1b[2J\x1b[H",
    "sets the window's title": "\x1b]0;root@prod\x07",
    "writes to the clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "hides itself": "\x1b[8mrm -rf ~\x1b[0m",
    "goes to the line's start and writes over it": "failed\rsucceeded",
    "takes characters back": "dead\b\b\b\bokay",
    "forges a line": "1\no-7\t42",
    "forges a line with a vertical tab": "1\x0bo-7 succeeded",
    "forges a page": "1\x0co-7 succeeded",
    "is a control sequence of one byte": "\x9b2J",
    "is a device control string of one byte": "\x90$q\x9c",
    "forges a line in the way of C1": "1\x85o-7",
    "deletes": "a\x7fb",
    "ends a string in C": "a\x00b",
    "turns text around": "user\u202egnp.exe",
    "isolates text": "a\u2066b\u2069c",
    "marks a direction": "a\u200eb\u200fc",
    "has no width": "pay\u200bload\u200d\u2060",
    "is a mark of byte order": "\ufeffa",
    "separates lines and paragraphs": "a\u2028b\u2029c",
    "hides in tags": "a\U000e0041\U000e0001",
    "selects variations": "a\ufe0e\U000e0100",
    "fills with nothing": "a\u3164\uffa0\u115fb",
    "is a soft hyphen": "pass\u00adword",
}
#: Unicode's categories of controls, formats, surrogates, and ends of lines and paragraphs.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_UNSEEN = set("\u3164\uffa0\u115f\ufe0e\U000e0100")


def raw_in(text: str) -> set[str]:
    """Return the characters in *text* that no terminal should get; line ends and tabs are allowed."""
    return {
        each
        for each in text
        if each not in "\n\t" and (unicodedata.category(each) in _ESCAPED or each in _UNSEEN)
    }
