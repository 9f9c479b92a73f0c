"""Every record is in the store exactly once, whatever is sent twice, killed or frozen."""

from __future__ import annotations

from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored


async def test_a_record_that_the_log_has_twice_is_stored_once(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x", "a/y"]), batch(["b/x"]))
        await producer.send("vigil.telemetry", edge.sent)
        await edge.send_samples(batch(["b/x"], samples=1))
        await until_stored(store, edge)
        assert count(store) == 31
        rows = execute(store.store, "SELECT samples, missing FROM ingest_progress")
        assert [(samples, str(missing)) for samples, missing in rows] == [(31, "{}")]
