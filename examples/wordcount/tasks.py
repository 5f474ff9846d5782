"""Counting words in text files, one file a job."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from svc import task

TEXTS = Path(__file__).parent / "texts"
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


@task(name="count_words", retries=1)
def count_words(name: str, *, shortest: int = 1) -> dict[str, int]:
    """Return how often each word of at least *shortest* letters occurs in the text file *name*."""
    path = (TEXTS / name).resolve()
    if path.parent != TEXTS.resolve():
        raise ValueError(f"{name!r} is not the name of a file in {TEXTS.name}/")
    words = _WORD.findall(path.read_text(encoding="utf-8").lower())
    return dict(Counter(word for word in words if len(word) >= shortest))
