"""Records of samples written per CPU second: telemetry.arrow_stream beside pyarrow's own writer, in one run.

Both make the same record of the same columns, compressed with LZ4, and pyarrow reads the same from both. "new names" is
what a record costs whose names were never written before; "names at hand" is the steady state, where Vigil keeps each
equipment's block and pyarrow its array of names. Beside it what the record costs later: its checksum (zlib) and its
decoding, and both of the same record without compression. Last the same of the records of the ingest benchmark's fleets.

    python -m benchmarks.arrow [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.ingest.edges import journal
from benchmarks.ingest.fleet import Fleet
from telemetry.arrow_read import NameTables, decode_samples
from telemetry.arrow_stream import write_stream
from telemetry.messages import Kind
from telemetry.name_block import name_block

SECONDS: Final = 0.5
REPEATS: Final = 5
SCHEMA: Final = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)
CASES: Final = ((1, 20), (50, 20), (250, 20), (50, 100), (500, 100))
"""(equipment, points of each): one reading of each."""
FLEETS: Final = (1_000, 10_000, 100_000)
"""Signals of the ingest benchmark's fleets."""
FLEET_ROWS: Final = 1_000_000


Columns = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.uint8]]


LZ4: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def by_pyarrow(names: pa.Array, columns: Columns, options: pa.ipc.IpcWriteOptions = LZ4) -> bytes:
    """The same record by pyarrow's writer."""
    signal, time_us, value, quality = columns
    batch = pa.record_batch(
        [
            pa.DictionaryArray.from_arrays(pa.array(signal), names),
            pa.array(time_us).cast(SCHEMA.field("time").type),
            pa.array(value),
            pa.array(quality),
        ],
        schema=SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def cost_us(work: Callable[[], object]) -> float:
    """CPU µs of one call: the best of some repeats, so that another process' cache does not count."""
    work()
    best = float("inf")
    for _ in range(REPEATS):
        began, calls = time.process_time(), 0
        while time.process_time() - began < SECONDS / REPEATS:
            work()
            calls += 1
        best = min(best, (time.process_time() - began) / calls)
    return best * 1e6


def measure() -> dict[str, Any]:
    """All cases, with what they were measured on."""
    chance = np.random.default_rng(1)
    cases = {}
    for equipment, points in CASES:
        named = [[f"boiler-{unit:04}/point_number_{p:03}" for p in range(points)] for unit in range(equipment)]
        rows = equipment * points
        columns = (
            np.arange(rows, dtype=np.int32),
            np.full(rows, 1_795_000_000_000_000, np.int64),
            chance.normal(size=rows),
            np.full(rows, 192, np.uint8),
        )
        cases[f"{equipment} × {points}"] = {"rows": rows, **case(named, columns)}
    return {
        "unit": "CPU µs a record",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"pyarrow {pa.__version__}",
        "cases": cases,
        "fleets": {f"{signals:,}": fleet_case(signals) for signals in FLEETS},
    }


def case(named: list[list[str]], columns: Columns) -> dict[str, float]:
    """Bytes of one record and what it costs each writer."""
    blocks = [name_block(names) for names in named]
    listed = [name for names in named for name in names]
    array = pa.array(listed, pa.utf8())
    record = write_stream(blocks, *columns)
    plain = by_pyarrow(array, columns, pa.ipc.IpcWriteOptions())
    agree(record, by_pyarrow(array, columns))
    agree(record, plain)
    known = NameTables()
    costs = {
        "vigil, names at hand": cost_us(lambda: write_stream(blocks, *columns)),
        "pyarrow, names at hand": cost_us(lambda: by_pyarrow(array, columns)),
        "vigil, new names": cost_us(lambda: write_stream([name_block(names) for names in named], *columns)),
        "pyarrow, new names": cost_us(lambda: by_pyarrow(pa.array(listed, pa.utf8()), columns)),
        "checksum": cost_us(lambda: zlib.crc32(record)),
        "decoding": cost_us(lambda: decode_samples(record, known)),
        "checksum without compression": cost_us(lambda: zlib.crc32(plain)),
        "decoding without compression": cost_us(lambda: decode_samples(plain, known)),
    }
    return {
        "bytes": len(record),
        "bytes without compression": len(plain),
        **{name: round(cost, 1) for name, cost in costs.items()},
    }


def fleet_case(signals: int) -> dict[str, float]:
    """Records of 10,000 rows as the ingest benchmark has edges make them, by sample, and the same without compression."""
    fleet = Fleet(signals, 10 if signals >= 100_000 else 2, 10_000)
    sent = journal(fleet, 1_795_000_000_000_000, fleet.seconds_for(FLEET_ROWS))
    values = [one.record.value for one in sent if one.record.headers["kind"] == Kind.SAMPLES.encode()]
    plain, rows, known = [], 0, NameTables()
    for value in values:
        batch = decode_samples(value, known)
        columns = (batch.signal, batch.time_us, batch.value, batch.quality)
        plain.append(by_pyarrow(pa.array(batch.names), columns, pa.ipc.IpcWriteOptions()))
        agree(value, plain[-1])
        rows += len(batch.signal)

    def read(records: list[bytes]) -> float:
        return cost_us(lambda: [(zlib.crc32(record), decode_samples(record, known)) for record in records])

    return {
        "rows": rows,
        "bytes a sample": round(sum(map(len, values)) / rows, 1),
        "checksum and decoding, ms a million": round(read(values) / rows * 1e3, 1),
        "bytes a sample without compression": round(sum(map(len, plain)) / rows, 1),
        "checksum and decoding without compression, ms a million": round(read(plain) / rows * 1e3, 1),
    }


def agree(ours: bytes, theirs: bytes) -> None:
    """pyarrow reads the same of both."""
    a, b = decode_samples(ours), decode_samples(theirs)
    assert a.names == b.names
    for name in ("signal", "time_us", "value", "quality"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()


def main() -> None:
    """Prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines, on stdout")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        json.dump(found, sys.stdout, ensure_ascii=False)
        print()
        return
    print(f"{found['unit']}, {found['machine']}")
    for name, case in found["cases"].items():
        print(f"  {name:10}" + "   ".join(f"{key} {value:,}" for key, value in case.items()))
    for name, case in found["fleets"].items():
        print(f"  {name} signals: " + "   ".join(f"{key} {value:,}" for key, value in case.items()))


if __name__ == "__main__":
    main()
