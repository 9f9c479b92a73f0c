"""Snapshots as bytes; the accepted sets."""

from __future__ import annotations

import numpy as np
import pytest

from analytics import snapshot
from analytics.accepted import KEPT, Accepted
from telemetry.errors import RecordError
from telemetry.wire import Identity


def test_columns_of_every_kind_come_back_as_they_were() -> None:
    arrays = {
        "f": np.array([[1.5, np.nan], [np.inf, -0.0]]),
        "i": np.array([-(2**62), 7]),
        "s": np.array(["锅炉/b", ""], np.str_),
        "none": np.empty((0, 3), np.int8),
        "t": np.arange(12).reshape(3, 4).T,
    }
    back, plain = snapshot.unpack(snapshot.pack(arrays, {"x": [1, "y"]}))
    assert plain == {"x": [1, "y"]}
    assert back.keys() == arrays.keys()
    for name, column in arrays.items():
        np.testing.assert_array_equal(back[name], column)
        assert back[name].dtype == column.dtype
        assert back[name].flags.writeable


@pytest.mark.parametrize("data", [b"", b"nonsense", b"VGS1nonsense"])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match="snapshot"):
        snapshot.unpack(data)


def test_a_snapshot_that_was_cut_short_is_refused() -> None:
    whole = snapshot.pack({"i": np.arange(1000)}, {})
    with pytest.raises(RecordError, match="snapshot"):
        snapshot.unpack(whole[:-20])


def test_a_record_is_new_once_and_still_known_after_a_restore() -> None:
    accepted = Accepted()
    assert [accepted.take(Identity("e", 1, s)) for s in (0, 1, 1, 5, 0, 3)] == [True, True, False, True, False, True]
    again = Accepted()
    again.restore(accepted.plain())
    assert [again.take(Identity("e", 1, s)) for s in (0, 1, 2, 3, 4, 5)] == [False, False, True, False, True, False]
    assert again.take(Identity("e", 2, 0))


def test_of_an_edge_that_restarts_for_ever_the_newest_epochs_are_kept() -> None:
    accepted = Accepted()
    for epoch in range(KEPT + 10):
        accepted.take(Identity("e", epoch, 0))
    assert len(accepted.plain()["e"]) == KEPT
    assert not accepted.take(Identity("e", KEPT + 9, 0))
