"""The whole edge on a serial line: read, unplugged, plugged in again; what is on its log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from telemetry.quality import BAD_COMMS, GOOD
from tests.edge.running import PROFILE, plant_of, read_log, start
from tests.edge.serial_line import SerialLine
from tests.fixtures.waiting import until


async def test_two_units_of_a_line_are_on_the_log_and_its_absence_too(tmp_path: Path) -> None:
    async with SerialLine(tmp_path / "ttyUSB0") as line:
        options = "?baud=19200&stop=2"
        edge = start(plant_of(tmp_path, line.url(3, options), line.url(4, options), profile=PROFILE))
        await until(lambda: len(line.asked) >= 10)
        assert line.settings() == (19200, True)
        line.unplug()

        async def both_are_bad() -> bool:
            told = (await read_log(edge.settings)).samples()
            return int((told.quality == BAD_COMMS).sum()) >= 4  # two points of two units

        await until(both_are_bad)
        line.plug_in()
        seen = len(line.asked)
        await until(lambda: len(line.asked) >= seen + 10)
        await edge.end()
        found = await read_log(edge.settings)
    assert {ask.unit for ask in line.asked} == {3, 4}
    assert line.odd == b""
    found.assert_no_holes()
    found.assert_ledger_is_the_rows()
    samples = found.samples()
    for name in ("e1/level", "e2/level"):
        mine = samples.signal == samples.names.index(name)
        assert set(samples.value[mine & (samples.quality == GOOD)]) == {10.0}
        assert BAD_COMMS in samples.quality[mine]
        assert np.isnan(samples.value[mine & (samples.quality == BAD_COMMS)]).all()
