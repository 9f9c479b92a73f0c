"""Direct Compress is never told that rows are sorted, whatever the server's configuration says."""

from __future__ import annotations

from psycopg import sql

from telemetry.ledger import HOUR_US
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing, until_stored

START = (now_us() // HOUR_US - 30) * HOUR_US
MINUTE_US = 60_000_000


async def test_a_server_that_trusts_the_clients_order_is_not_believed(timescale_store: Settings) -> None:
    """design.md, The store: with `client_sorted` on, a later flush that overlaps makes order, max and last wrong."""
    name = execute(timescale_store.store, "SELECT current_database()")[0][0]
    for setting in ("client_sorted", "sort_batches"):
        execute(
            timescale_store.store,
            sql.SQL("ALTER DATABASE {} SET {} = on").format(
                sql.Identifier(name),
                sql.SQL(f"timescaledb.enable_direct_compress_copy_{setting}"),
            ),
        )
    async with producing(timescale_store) as producer, ingesting(timescale_store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=600, start_us=START))
        await until_stored(timescale_store, edge)
        late = batch(["a/x"], samples=100, start_us=START + 5 * MINUTE_US, step_us=6_000_000, value=10_000.0)
        await edge.send_samples(late)
        await until_stored(timescale_store, edge)
    assert execute(timescale_store.store, "SHOW timescaledb.enable_direct_compress_copy_client_sorted") == [("on",)]
    assert count(timescale_store) == 700
    assert in_rows(timescale_store) == 0, "both flushes went straight into the columnstore"
    newest = START + 5 * MINUTE_US + 99 * 6_000_000
    found = (
        "SELECT (extract(epoch FROM time) * 1000000)::bigint, value FROM store.sample"
        " WHERE signal_id = (SELECT signal_id FROM store.signal) ORDER BY time"
    )
    times = [row[0] for row in execute(timescale_store.store, found)]
    assert times == sorted(times)
    assert execute(timescale_store.store, f"{found} DESC LIMIT 1") == [(newest, 10_099.0)]
    assert execute(timescale_store.store, f"{found} LIMIT 1") == [(START, 1.5)]
    assert execute(
        timescale_store.store,
        "SELECT (extract(epoch FROM max(time)) * 1000000)::bigint, last(value, time) FROM store.sample",
    ) == [(newest, 10_099.0)]


def in_rows(store: Settings) -> int:
    """Rows of samples that lie uncompressed."""
    chunks = execute(
        store.store,
        "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'sample'",
    )
    return sum(int(execute(store.store, f"SELECT count(*) FROM ONLY {name}")[0][0]) for (name,) in chunks)  # noqa: S608
