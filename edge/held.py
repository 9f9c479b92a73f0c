"""What report by exception holds back, as it is kept with the readings: so that a kill costs none of it.

Invariant: with each commit the state says of each equipment in it what its signals hold then, in the same transaction. What
a start finds there was read and acknowledged and not reported: it is reported first, in its own time, and no longer held in
the transaction that journals it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import structlog

from edge.columns import NOTHING, Columns, join
from edge.swinging_door import Held
from telemetry.name_block import NameBlock, name_block
from telemetry.names import signal_name, split_signal

log = structlog.get_logger()

HELD: Final = "held/"
"""Keys of the state: equipment → readings that are held back, as JSON: lists of one length (COLUMNS)."""
COLUMNS: Final = ("point", "time_us", "value", "quality")


def held_key(equipment: str) -> str:
    """Where what is held back of an equipment is kept."""
    return HELD + equipment


def spell_held(several: Sequence[tuple[NameBlock, Held]]) -> str:
    """For keeping: what the blocks of one equipment hold (Reporter.holds). Empty where nothing is held. About 5 µs."""
    point: list[str] = []
    columns: tuple[list[Any], ...] = ([], [], [])
    for block, held in several:
        if len(held.at):
            skip = block.names[0].index("/") + 1
            point += [block.names[place][skip:] for place in held.at.tolist()]
            for column, more in zip(
                columns, (held.time_us.tolist(), held.value.tolist(), held.quality.tolist()), strict=True
            ):
                column += more
    return orjson.dumps(dict(zip(COLUMNS, (point, *columns), strict=True))).decode() if point else ""


def held_equipment(state: Mapping[str, str]) -> list[str]:
    """Equipment of which something is kept."""
    return [key.removeprefix(HELD) for key, value in state.items() if key.startswith(HELD) and value]


def read_held(state: Mapping[str, str]) -> Columns:
    """What was held back when the last run ended, one part an equipment. What is not to be read is logged and left out."""
    return join([_read(equipment, state[held_key(equipment)]) for equipment in held_equipment(state)])


def _read(equipment: str, text: str) -> Columns:
    try:
        kept: dict[str, Any] = orjson.loads(text)
        points, time_us, value, quality = (kept[name] for name in COLUMNS)
        names = list(dict.fromkeys(signal_name(*split_signal(f"{equipment}/{point}")) for point in points))
        if not len(names) == len(points) == len(time_us) == len(value) == len(quality) > 0:
            raise ValueError("expected lists of one length, of different points")
        return Columns(
            [equipment],
            [name_block(names)],
            np.array([len(names)], np.int64),
            np.arange(len(names), dtype=np.int32),
            np.array(time_us, np.int64),
            np.array(value, np.float64),
            np.array(quality, np.uint8),
        )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        log.error("readings that were held back cannot be read", equipment=equipment, why=str(error))
        return NOTHING
