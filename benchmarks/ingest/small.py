"""Storage of a small fleet: 10,000 samples a second from 2,000 signals, as ingest stores them in real time, after the
columnstore policy has run; beside it the same fleet's records stored in bulk.

Flushes go by the age of records on the machine's own clock, which no scaled clock hastens, so the first part takes real time.
Samples are of three days ago, so that the policy (chunks older than a day) takes them; the policy is as Vigil sets it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest.edges import Sent, journal
from benchmarks.ingest.fleet import SECOND_US
from benchmarks.ingest.latency import SMALL
from benchmarks.ingest.sending import sending
from benchmarks.ingest.service import Ingest, database, server
from benchmarks.ingest.throughput import told
from benchmarks.ingest.topic import fill, kafka, servers_of
from benchmarks.ingest.watch import Watch
from tests.fixtures.store import StoreServer, execute

DAY_S: Final = 86_400
AGO_DAYS: Final = 3
BULK_S: Final = 300.0


def measure(seconds: float) -> dict[str, Any]:
    """Bytes a sample of both, before and after the policy, and the ratio of what stays."""
    midnight_s = (time.time_ns() // 10**9 // DAY_S - AGO_DAYS) * DAY_S
    records = list(journal(SMALL, midnight_s * SECOND_US, int(seconds)))
    with server() as store:
        real = stored(store, records, bulk=False)
        told(f"real time: {real}")
        bulk = stored(store, records, bulk=True)
        told(f"bulk: {bulk}")
    return {"real time": real, "bulk": bulk, "ratio": round(real["bytes_after"] / bulk["bytes_after"], 3)}


def stored(store: StoreServer, records: Sequence[Sent], *, bulk: bool) -> dict[str, Any]:
    """One way of storing the records: as they come, or all of them waiting in the log when ingest starts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-bench-")))
        broker = stack.enter_context(kafka())
        url = stack.enter_context(database(store))
        ingest = Ingest(folder, url, broker.url)
        servers = servers_of(broker)
        filled = fill(servers, records, 1) if bulk else None
        program = stack.enter_context(ingest.start())
        try:
            if filled is not None:
                watch = Watch(url, filled, {}, [program.pid])
                watch.until_stored(BULK_S, lambda: program.process.poll() is None)
            else:
                asyncio.run(_sent(servers, url, records))
        except (AssertionError, RuntimeError) as error:
            raise RuntimeError(f"{error!r}\n{program.said()}") from error
        said = ingest.metrics()
        flushes = {how: int(said.get(f'vigil_ingest_flushes_total{{copy="{how}"}}', 0)) for how in ("direct", "plain")}
        program.stop()
        audit = ingest.audit()
        return sizes(url) | {"flushes": flushes, **{name: audit[name] for name in ("lost", "doubled", "clean")}}


async def _sent(servers: str, url: str, records: Sequence[Sent]) -> None:
    async with sending(servers, url, records) as (sender, _):
        await sender.rest(per_s=SMALL.samples_per_s)
        await sender.drained()


def sizes(url: str) -> dict[str, Any]:
    """Bytes a sample, as written and after the columnstore policy's own job; chunks that the job left as they
    were; and the least, all rows of a chunk compressed again together."""
    rows = execute(url, "SELECT count(*) FROM store.sample")[0][0]
    before = execute(url, _SIZE)[0][0]
    ((job,),) = execute(url, _JOB)
    execute(url, f"CALL run_job({int(job)})")
    after, left = execute(url, _SIZE)[0][0], execute(url, _LEFT)[0][0]
    execute(url, "SELECT compress_chunk(c, recompress => true) FROM show_chunks('store.sample') c")
    return {
        "rows": rows,
        "bytes_before": round(before / rows, 2),
        "bytes_after": round(after / rows, 2),
        "bytes_least": round(execute(url, _SIZE)[0][0] / rows, 2),
        "chunks_left": left,
    }


_SIZE: Final = "SELECT hypertable_size('store.sample')"
_JOB: Final = """
SELECT job_id FROM timescaledb_information.jobs
WHERE hypertable_schema = 'store' AND hypertable_name = 'sample' AND proc_name IN ('policy_compression', 'policy_columnstore')
"""
_LEFT: Final = """
SELECT count(*) FROM timescaledb_information.chunks
WHERE hypertable_schema = 'store' AND hypertable_name = 'sample' AND NOT is_compressed
"""
