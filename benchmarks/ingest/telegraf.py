"""The same rows through Telegraf (kafka_consumer → postgresql), the peer, on the same servers after Vigil's own run.

The table is a hypertable as its documentation makes one (chunks of a day, an index on time), a tag's text kept once
(`tags_as_foreign_keys`), four connections; batches and buffers are large enough that nothing has to be dropped, except in the
last case, which has its default limits. Lost and doubled rows are counted in the table, by (signal, time).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.edge.process import Program
from benchmarks.edge.telegraf import WHERE, find_telegraf, version_of
from benchmarks.ingest.lines import lines
from benchmarks.ingest.throughput import Case, bench, ingested, told
from benchmarks.ingest.topic import fill, make_topic
from benchmarks.ingest.watch import Look, Run, resident_mb, spent_s
from tests.fixtures.store import StoreServer, execute, fresh_database

TOPIC: Final = "telegraf"
BATCH: Final = 50_000
UNDELIVERED: Final = 500
CONNECTIONS: Final = 4
"""One is its default; more are a little faster."""
LOOK_EVERY_S: Final = 0.25
STILL_S: Final = 20.0
"""Nothing more comes once nothing has come for so long (a killed member's partition is free after 10 s)."""
GIVE_UP_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Telegraf's binary and the topic of lines that it reads."""

    binary: Path
    servers: str
    samples: int
    folder: Path

    def measure(self, store: StoreServer, name: str, *, kill: bool = False, defaults: bool = False) -> dict[str, Any]:
        """One run into a fresh database; with `kill`, SIGKILL at half of the rows and a new start."""
        with self._database(store) as url:
            config = self._config(url, f"telegraf-{name}", defaults=defaults)
            run = Run()
            with self._started(config, name) as program:
                self._watch(
                    url, run, {"telegraf": program, "postgres": store}, until=self.samples // 2 if kill else None
                )
                if kill:
                    program.process.kill()
                    program.process.wait(10)
            if kill:
                with self._started(config, f"{name}-again") as program:
                    self._watch(url, run, {"telegraf": program, "postgres": store})
            return self._figures(url, run, name, costs=not (kill or defaults))

    @contextmanager
    def _database(self, store: StoreServer) -> Iterator[str]:
        with fresh_database(store.url, template=None) as url:
            execute(url, "CREATE EXTENSION IF NOT EXISTS timescaledb")
            execute(url, "CHECKPOINT")
            yield url

    @contextmanager
    def _started(self, config: str, name: str) -> Iterator[Program]:
        file = self.folder / f"telegraf-{name}.conf"
        file.write_text(config, encoding="utf-8")
        with Program([str(self.binary), "--config", str(file)], self.folder / f"telegraf-{name}.log") as program:
            yield program

    def _watch(self, url: str, run: Run, of: dict[str, Any], *, until: int | None = None) -> None:
        """Looks until so many rows came, or no more came for STILL_S."""
        roots = {who: one.pid if isinstance(one, Program) else one.process.pid for who, one in of.items()}
        began = changed = time.monotonic()
        while (now := time.monotonic()) - changed < STILL_S and now - began < GIVE_UP_S:
            if of["telegraf"].process.poll() is not None:
                raise RuntimeError(f"Telegraf ended: {of['telegraf'].said()}")
            rows = _inserted(url)
            if rows and (not run.stored or rows > run.stored[-1][1]):
                changed = now
                run.stored.append((now, rows))
                cpu = {who: spent_s(pid) for who, pid in roots.items()}
                run.looks.append(Look(now, rows, cpu, resident_mb(roots["telegraf"])))
            if (until is not None and rows >= until) or rows >= self.samples:
                return
            time.sleep(LOOK_EVERY_S)

    def _figures(self, url: str, run: Run, name: str, *, costs: bool) -> dict[str, Any]:
        if not _inserted(url):
            raise RuntimeError(f"Telegraf wrote nothing: {(self.folder / f'telegraf-{name}.log').read_text()[-1500:]}")
        rows, distinct = execute(url, _COUNT)[0]
        size = execute(url, "SELECT hypertable_size('sample') + pg_total_relation_size('sample_tag')")[0][0]
        found = {"rows": rows, "doubled": rows - distinct, "lost": self.samples - distinct}
        if costs and len(run.stored) > 1:
            found |= {
                "per_s": round(run.per_s),
                "seconds": round(run.seconds, 2),
                "cpu_s_per_million": {who: round(spent, 3) for who, spent in run.cpu_per_million().items()},
                "bytes_per_sample": round(size / rows, 2),
                "rss_mb": round(max(look.resident_mb for look in run.looks)),
            }
        return found

    def _config(self, url: str, group: str, *, defaults: bool) -> str:
        parts = conninfo_to_dict(url)
        limits = "" if defaults else f"  metric_batch_size = {BATCH}\n  metric_buffer_limit = {UNDELIVERED * 2_000}\n"
        connection = f"host={parts['host']} user={parts['user']} dbname={parts['dbname']} pool_max_conns={CONNECTIONS}"
        undelivered = "" if defaults else f"  max_undelivered_messages = {UNDELIVERED}\n"
        return (
            f'[agent]\n  flush_interval = "1s"\n  omit_hostname = true\n{limits}'
            f'[[inputs.kafka_consumer]]\n  brokers = ["{self.servers}"]\n  topics = ["{TOPIC}"]\n'
            f'  kafka_version = "2.8.0"\n  consumer_group = "{group}"\n  offset = "oldest"\n'
            f'  consumer_fetch_default = "8MB"\n  max_processing_time = "10s"\n{undelivered}  data_format = "influx"\n'
            f'[[outputs.postgresql]]\n  connection = "{connection}"\n'
            '  tags_as_foreign_keys = true\n  timestamp_column_type = "timestamp with time zone"\n'
            f"  create_templates = ['''CREATE TABLE {{{{ .table }}}} ({{{{ .columns }}}})''',\n"
            f"    '''SELECT create_hypertable({{{{ .table|quoteLiteral }}}}, by_range('time', INTERVAL '1 day'))''']\n"
        )


def measure(case: Case) -> dict[str, Any]:
    """Vigil's own run, and Telegraf's: as fast as it goes, killed once in mid-load, and with its default limits."""
    binary = find_telegraf()
    with bench(case) as made:
        found: dict[str, Any] = {"vigil": ingested(made, 0, audit=case.audit)}
        if binary is None:
            told(f"no Telegraf ({WHERE} or PATH): Vigil alone")
            return found
        servers = made.servers
        asyncio.run(make_topic(servers, TOPIC, 1))
        filled = fill(servers, lines(case.fleet, made.start_us, made.seconds), 1, topic=TOPIC)
        told(f"lines: {filled.total:,} samples, {filled.bytes / filled.total:.0f} B each, {filled.seconds:.0f} s")
        peer = Peer(binary, servers, filled.total, made.folder)
        found["version"] = version_of(binary)
        for name, options in (("telegraf", {}), ("killed", {"kill": True}), ("defaults", {"defaults": True})):
            found[name] = peer.measure(made.store, name, **options)
            told(f"{name}: {found[name]}")
    if "per_s" in found["telegraf"]:
        found["ratio"] = round(found["vigil"]["per_s"] / found["telegraf"]["per_s"], 2)
    return found


def _inserted(url: str) -> int:
    """Rows inserted so far, by the server's statistics (up to a second old)."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_INSERTED).fetchone()
    return int(row[0]) if row else 0


_INSERTED: Final = """
SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE schemaname = '_timescaledb_internal'
"""
_COUNT: Final = "SELECT count(*), count(DISTINCT (tag_id, time)) FROM sample"
