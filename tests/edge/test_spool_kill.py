"""A process that journals, killed by SIGKILL at any moment: what it said is durable is there, whole and in order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.arrow_read import decode_samples
from telemetry.messages import Kind
from tests.edge.spools import FakeTime, S, forwarded, ledgers, open_at

CHILD = """
import sys
from pathlib import Path
from edge.provisional import provisional_samples
from telemetry.wire import encode_samples
from tests.edge.spools import NOW_US, FakeTime, batch_of, columns_of, increments, open_at
time = FakeTime(wall_us=10_000_000)
spool = open_at(Path(sys.argv[1]), int(sys.argv[2]), tail_bytes=20_000, stamps=time.stamps())
for n in range(1_000_000):
    batch = batch_of("e", 1 + n % 50, time_us=NOW_US + n)
    held = [provisional_samples(columns_of("held", [time.boot_us + n] * 3))] if n < 6 else []
    spool.journal([encode_samples(batch)], increments("e", batch), {"n": str(n)}, n.to_bytes(16, "little"), provisional=held)
    print(spool.seq - 1, n, flush=True)
    if n == 9:
        time.wall_us = NOW_US
    if n % 7 == 3:
        spool.publish()
    if n % 5 == 2:
        spool.backlog(max_records=3, max_bytes=1 << 20)
        spool.settle()
"""


@pytest.mark.parametrize("lived_s", [0.0, 0.013, 0.05, 0.12])
def test_what_a_killed_process_said_is_durable_is_there(tmp_path: Path, lived_s: float) -> None:
    path = tmp_path / "spool.sqlite"
    said: dict[int, tuple[int, int]] = {}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for epoch in (11, 12):
        command = [sys.executable, "-c", CHILD, str(path), str(epoch)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        end = time.monotonic() + lived_s
        while time.monotonic() < end:
            lines.append(child.stdout.readline())
        child.kill()
        lines += child.stdout.read().split(b"\n")[:-1]  # What is cut off was not said.
        seq, n = lines[-1].split()
        said[epoch] = (int(seq), int(n))
        child.stdout.close()
        child.wait(10)
    spool = open_at(path, 13, stamps=FakeTime(boot_us=100 * S).stamps())
    spool.publish(force=True)
    sent = forwarded(spool)
    spool.publish(force=True)
    sent += forwarded(spool)
    assert spool.held == 0
    assert spool.counts.corrupt_records == 0
    for epoch, (last, _) in said.items():
        seqs = sorted(seq for made, seq, _ in sent if made == epoch)
        assert seqs == list(range(len(seqs)))
        assert seqs[-1] >= last
    assert int(spool.state()["n"]) >= said[12][1]
    assert len(spool.delivered()) >= sum(n + 1 for _, n in said.values())
    batches = [decode_samples(e.value) for _, _, e in sent if e.kind is Kind.SAMPLES]
    told = [e.samples for ledger in ledgers(sent) for e in ledger.entries]
    assert sum(told) == sum(map(len, batches)), "the ledger has neither more nor less than what is there"
    held = sum(len(b) for b in batches if b.names[0].startswith("held/"))
    assert held >= 3 * sum(min(n + 1, 6) for _, n in said.values()), "what waited for the clock, too"
    spool.close()
