"""What every detector must pass. A subclass says how to make one and which streams suit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import snapshot
from analytics.detectors.contract import Detector, Readings
from analytics.detectors.latch import NEVER_US
from analytics.kernels.segments import in_order
from telemetry.messages import Finding
from tests.analytics.plants import T0, S
from tests.analytics.streams import Row, plain, readings

Item = list[Row] | int
"""A record's rows, or a heartbeat's time."""
RUNS = settings(max_examples=40, deadline=None, derandomize=True)


def items(signals: Sequence[int], values: st.SearchStrategy[float], most: int = 40) -> st.SearchStrategy[list[Item]]:
    """Streams whose time never falls: records of some rows, and heartbeats."""
    row = st.tuples(
        st.sampled_from(list(signals)),
        st.sampled_from([0, 0, 0, S // 2, S]),
        values,
        st.sampled_from([True] * 6 + [False]),
    )
    item = st.tuples(
        st.sampled_from([0, S // 2, S, 2 * S, 3 * S, 12 * S]), st.none() | st.lists(row, min_size=1, max_size=5)
    )

    def build(raw: list[tuple[int, list[tuple[int, int, float, bool]] | None]]) -> list[Item]:
        now, made = T0, list[Item]()
        for gap, rows in raw:
            now += gap
            if rows is None:
                made.append(now)
                continue
            record = []
            for signal, step, value, known in rows:
                now += step
                record.append(Row(signal, now, value, known))
            made.append(record)
        return made

    return st.lists(item, min_size=1, max_size=most).map(build)


def drive(detector: Detector, stream: Sequence[Item], equipment: int, cuts: Sequence[bool] = ()) -> list[Finding]:
    """Feeds a stream; records that follow one another are one call, except where `cuts` says so."""
    found: list[Finding] = []
    rows: list[Row] = []
    numbers: list[int] = []

    def flush() -> None:
        if rows:
            found.extend(detector.update(readings(rows, numbers)))
            rows.clear()
            numbers.clear()

    for i, item in enumerate(stream):
        if isinstance(item, int):
            flush()
            found.extend(detector.advance(item, np.ones(equipment, np.bool_)))
            continue
        if i < len(cuts) and cuts[i]:
            flush()
        rows += item
        numbers += [i] * len(item)
    flush()
    return found


class DetectorConformance:
    """The suite."""

    equipment = 2
    signals: Sequence[int] = (0,)
    values: st.SearchStrategy[float] = st.just(0.0)

    def make(self) -> Detector:
        raise NotImplementedError

    def memory(self, detector: Detector) -> Mapping[str, npt.NDArray[Any]]:
        """What the detector has learned of what is normal."""
        return {}

    def anomalous(self) -> tuple[list[Item], list[Row], list[Row]]:
        """A stream after which both rows raise, the second one being the more anomalous."""
        raise NotImplementedError

    def streams(self) -> st.SearchStrategy[list[Item]]:
        return items(self.signals, self.values)

    def test_input_is_untouched(self) -> None:
        calm, mild, strong = self.anomalous()
        detector = self.make()
        drive(detector, calm, self.equipment)
        given_ = readings([*mild, *strong])
        before = [c.copy() for c in (given_.signal, given_.time_us, given_.value, given_.known, given_.record)]
        detector.update(given_)
        after = (given_.signal, given_.time_us, given_.value, given_.known, given_.record)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)

    def test_however_the_stream_is_cut_the_findings_are_the_same(self) -> None:
        @RUNS
        @given(self.streams(), st.lists(st.booleans(), min_size=40, max_size=40))
        def holds(stream: list[Item], cuts: list[bool]) -> None:
            whole = drive(self.make(), stream, self.equipment)
            cut = drive(self.make(), stream, self.equipment, cuts)
            single = drive(self.make(), stream, self.equipment, [True] * len(stream))
            assert plain(whole) == plain(cut) == plain(single)

        holds()

    def test_a_restored_snapshot_continues_as_if_it_had_never_stopped(self) -> None:
        @RUNS
        @given(self.streams(), st.integers(0, 40))
        def holds(stream: list[Item], at: int) -> None:
            steady, stopped = self.make(), self.make()
            drive(steady, stream[:at], self.equipment)
            drive(stopped, stream[:at], self.equipment)
            arrays, _ = snapshot.unpack(snapshot.pack(stopped.snapshot(), {}))
            restored = self.make()
            assert restored.restore(arrays) == []
            assert drive(restored, stream[at:], self.equipment) == drive(steady, stream[at:], self.equipment)
            assert snapshot.pack(restored.snapshot(), {}) == snapshot.pack(steady.snapshot(), {})

        holds()

    def test_a_snapshot_in_mid_anomaly_is_restored_whole(self) -> None:
        calm, mild, _ = self.anomalous()
        stopped, restored = self.make(), self.make()
        assert drive(stopped, [*calm, mild], self.equipment)
        before = snapshot.pack(stopped.snapshot(), {})
        restored.restore(snapshot.unpack(before)[0])
        assert snapshot.pack(restored.snapshot(), {}) == before

    def test_a_snapshot_is_a_copy(self) -> None:
        calm, mild, strong = self.anomalous()
        detector = self.make()
        drive(detector, calm, self.equipment)
        taken = detector.snapshot()
        before = snapshot.pack(taken, {})
        drive(detector, [mild, strong], self.equipment)
        assert snapshot.pack(taken, {}) == before

    def test_bad_and_nan_readings_raise_nothing(self) -> None:
        calm, mild, strong = self.anomalous()
        for value, known in ((None, False), (float("nan"), True)):
            spoiled = [Row(r.signal, r.time_us, r.value if value is None else value, known) for r in (*mild, *strong)]
            stream: list[Item] = [*calm, spoiled, strong[-1].time_us + 60 * S]
            assert [f for f in drive(self.make(), stream, self.equipment) if f.raised] == []

    def test_a_constant_signal_and_a_long_gap_raise_nothing(self) -> None:
        calm = [item for item in self.anomalous()[0] if not isinstance(item, int)]
        last = calm[-1][-1]
        steady: list[Item] = [[Row(r.signal, last.time_us + i * S, r.value) for r in calm[-1]] for i in range(1, 50)]
        later: list[Item] = [[Row(r.signal, last.time_us + 90_000 * S, r.value) for r in calm[-1]]]
        assert drive(self.make(), [*calm, *steady, *later], self.equipment) == []

    def test_readings_out_of_order_leave_no_trace_in_live_state(self) -> None:
        @RUNS
        @given(self.streams(), st.randoms(use_true_random=False))
        def holds(stream: list[Item], random: Any) -> None:
            rows = [row for item in stream if not isinstance(item, int) for row in item]
            random.shuffle(rows)
            if not rows:
                return
            all_rows = readings(rows)
            live, _, _ = in_order(np.full(64, NEVER_US), all_rows.signal, all_rows.time_us)
            kept = [row for row, keep in zip(rows, live, strict=True) if keep]
            mixed, clean = self.make(), self.make()
            assert mixed.update(all_rows.take(live)) == clean.update(readings(kept))
            assert snapshot.pack(mixed.snapshot(), {}) == snapshot.pack(clean.snapshot(), {})

        holds()

    def test_what_is_further_off_scores_no_lower(self) -> None:
        calm, mild, strong = self.anomalous()
        scores = [self._raised(calm, rows)[0].score for rows in (mild, strong)]
        assert 0.0 < scores[0] <= scores[1] <= 1.0

    def test_it_does_not_learn_from_what_it_has_just_called_anomalous(self) -> None:
        calm, mild, _ = self.anomalous()
        detector = self.make()
        drive(detector, [*calm, mild], self.equipment)
        before = {name: column.copy() for name, column in self.memory(detector).items()}
        more = [Row(r.signal, r.time_us + i * S, r.value) for i in range(1, 20) for r in mild[-1:]]
        drive(detector, [more], self.equipment)
        for name, column in self.memory(detector).items():
            np.testing.assert_array_equal(column, before[name], err_msg=name)

    def test_no_readings_are_no_work(self) -> None:
        detector = self.make()
        before = snapshot.pack(detector.snapshot(), {})
        assert detector.update(EMPTY) == []
        assert snapshot.pack(detector.snapshot(), {}) == before

    def _raised(self, calm: list[Item], rows: list[Row]) -> list[Finding]:
        found = drive(self.make(), [*calm, rows, rows[-1].time_us + 60 * S], self.equipment)
        raised = [f for f in found if f.raised]
        assert raised
        return raised


EMPTY = Readings(np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_), np.empty(0, np.int64))
