"""Names of a register list's points: what people read, in both languages, and the slug that travels.

A text of the list is kept as it is. Where it stands in one language only, it stands for both: the draft's keeper
translates it, and nobody reads an invented word at 3 a.m.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from telemetry.model import Text

MAX_NAME: Final = 56
"""Characters of a slug; a point's name has at most 64, with room for a number behind it."""
MAX_TEXT: Final = 120

_HAN: Final = re.compile(r"[\u3400-\u9fff]")
_BOTH: Final = re.compile(r"^(.*?[\u3400-\u9fff)）])[\s/|:：(（-]+([A-Za-z][^\u3400-\u9fff]{2,}?)[)）]?$")
_BOTH_TURNED: Final = re.compile(r"^([A-Za-z][^\u3400-\u9fff]{2,}?)[\s/|:：(（-]+([\u3400-\u9fff].*?)[)）]?$")


def point_texts(cell: Callable[[str], str]) -> Text:
    """The name of a row in Chinese and English; `cell` gives the row's text of a meaning, empty where there is none."""
    chinese, english = cell("name_zh"), cell("name_en")
    for text in (cell("name"), cell("description")):
        if (both := _BOTH.fullmatch(text)) is not None:
            found = (both[1], both[2])
        elif (turned := _BOTH_TURNED.fullmatch(text)) is not None:
            found = (turned[2], turned[1])
        else:
            found = (text, "") if _HAN.search(text) else ("", text)
        chinese, english = chinese or found[0], english or found[1]
    chinese, english = chinese or english or cell("address"), english or chinese or cell("address")
    return Text(zh=_short(chinese), en=_short(english))


def point_name(texts: Text, place: str) -> str:
    """The name that travels: of the English text, of the Latin words in the Chinese one, or of the place."""
    if not _HAN.search(texts.en):
        return slug(texts.en) or place
    words = re.findall(r"[A-Za-z][A-Za-z0-9]{2,}", texts.en)
    return slug(" ".join(words)) or place


def slug(text: str) -> str:
    """A name of a-z, 0-9 and _ made of the Latin letters in a text; empty where it has none."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    parted = re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", "_", plain)
    name = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")[:MAX_NAME].strip("_")
    return name if re.search(r"[a-z]", name) else ""


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
