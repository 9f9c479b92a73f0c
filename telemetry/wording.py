"""How faults speak: values as their author would recognise them, and the name that was probably meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any


def shown(value: Any) -> str:
    """A value as the file's author would recognise it, short."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """`known` as an expectation: the likely intended one first, else all of them."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"{close[0]} (did you mean that?)"
    return f"one of {', '.join(options)}" if options else "none, there is nothing to name"
