"""Between a fetch and its commit: nothing of another log is let in, whatever grew at the place of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from telemetry.errors import LogDiscontinuity
from telemetry.log.protocol import InRecord
from telemetry.position import Mark, mark, verify_unchanged
from telemetry.wire import Identity
from tests.telemetry.test_position import THREE, Held, P

OTHER = Mark(Identity("other", 9, 1), 5)


@pytest.mark.parametrize(
    ("rule", "first", "records", "next_", "last"),
    [
        ("the record is still there", 0, THREE, 2, mark(THREE[1])),
        ("it was trimmed, and what follows is there", 2, THREE[2:], 2, mark(THREE[1])),
        ("more was trimmed than was committed: it is in our hands", 3, [], 2, mark(THREE[1])),
    ],
)
async def test_the_same_log_is_written_from(
    rule: str, first: int, records: Sequence[InRecord], next_: int, last: Mark
) -> None:
    await verify_unchanged(Held(first, records), {P: (next_, last)})


@pytest.mark.parametrize(
    ("rule", "first", "records", "next_", "last", "message"),
    [
        ("another record at the place", 0, THREE, 2, OTHER, "offset 1: .*expected edge other .* found edge e"),
        ("a log that has not grown so far", 0, THREE[:1], 2, mark(THREE[1]), "offset 1: .* found no record"),
        ("an empty log", 0, [], 2, mark(THREE[1]), "offset 1: .* found no record"),
    ],
)
async def test_another_log_is_named(
    rule: str, first: int, records: Sequence[InRecord], next_: int, last: Mark, message: str
) -> None:
    with pytest.raises(LogDiscontinuity, match=f"vigil.findings/0 {message}"):
        await verify_unchanged(Held(first, records), {P: (next_, last)})
