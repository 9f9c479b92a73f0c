"""A process that journals, killed by SIGKILL at any moment: what it said is durable is there, whole and in order."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.messages import Kind
from telemetry.wire import decode_ledger

CHILD = """
import sys
from pathlib import Path
from edge.ledger import Tally
from edge.spool import Spool
from telemetry.batch import from_rows
from telemetry.wire import encode_samples
path, epoch = Path(sys.argv[1]), int(sys.argv[2])
spool, tally, n = Spool(path, edge="e", epoch=epoch, max_bytes=1 << 30), Tally(), 0
while True:
    batch = from_rows([(f"e/p{i}", n, float(n * 100 + i), 192) for i in range(1 + n % 50)])
    [identity] = spool.journal([encode_samples(batch)], tally.count([("e", batch)]))
    print(identity.seq, flush=True)
    if n % 7 == 3:
        spool.publish()
    n += 1
"""


@pytest.mark.parametrize("lived_s", [0.0, 0.013, 0.05, 0.12])
def test_what_a_killed_process_said_is_durable_is_there(tmp_path: Path, lived_s: float) -> None:
    path = tmp_path / "spool.sqlite"
    said: dict[int, int] = {}
    for epoch in (11, 12):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(epoch)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        said[epoch] = int(child.stdout.readline())
        end = time.monotonic() + lived_s
        while time.monotonic() < end:
            said[epoch] = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split(b"\n")[:-1]  # What is cut off was not said.
        said[epoch] = max([said[epoch], *(int(line) for line in rest)])
        child.stdout.close()
        child.wait(10)
    spool = Spool(path, edge="e", epoch=13, max_bytes=1 << 30)
    spool.publish(force=True)
    stored = spool.read(0, max_records=10**6, max_bytes=1 << 40)
    assert spool.counts.corrupt_records == 0
    for epoch, last in said.items():
        seqs = [s.identity.seq for s in stored if s.identity.epoch == epoch]
        assert seqs == list(range(len(seqs)))
        assert seqs[-1] >= last
    samples = [decode_samples(s.encoded.value) for s in stored if s.encoded.kind is Kind.SAMPLES]
    told = [e.samples for s in stored if s.encoded.kind is Kind.LEDGER for e in decode_ledger(s.encoded.value).entries]
    assert sum(told) == sum(map(len, samples)), "the ledger has neither more nor less than what is there"
    spool.close()
