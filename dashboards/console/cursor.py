"""Cursors of paged lists: opaque to clients, the sort key of the last row inside. A list is {"items", "next"}."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from dashboards.console.problems import Problem


def encode(*key: Any) -> str:
    """A cursor that stands after the row with this sort key."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> list[Any]:
    """The sort key of a cursor. Raises Problem 422 unless it has values of these types."""
    try:
        key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise Problem(422, "invalid-request", "cursor: expected the `next` of an earlier answer")
    return key
