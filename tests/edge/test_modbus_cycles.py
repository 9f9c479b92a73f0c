"""What a cycle asks and does not ask, of a device in memory."""

from __future__ import annotations

from edge.asking import Failure
from edge.driver import Outcome
from telemetry.profile import Profile
from telemetry.quality import GOOD
from tests.edge.build import NOW_US, values
from tests.edge.learning import SILENCE, Memory, reader_of
from tests.edge.profiles import make_profile


def profile_of(*addresses: int, **quirks: object) -> Profile:
    return make_profile({f"p{a}": {"modbus": {"address": a}} for a in addresses}, modbus=quirks)


def test_an_exception_to_the_probe_is_a_sign_of_life() -> None:
    """The point that is asked for first may be the one that the device does not have."""
    reader = reader_of(profile_of(*range(40), 100), Memory({0}))
    outcome = reader.cycle(probe=True)
    assert reader.memory.asked == [(0, 1), (0, 40), (100, 1)]
    assert outcome.answered == 2


def test_a_probe_that_is_not_answered_is_all_that_is_asked() -> None:
    reader = reader_of(profile_of(*range(40), 100), Memory(silent=True))
    outcome = reader.cycle(probe=True)
    assert reader.memory.asked == [(0, 1)]
    assert (outcome.answered, outcome.unanswered) == (0, 1)


def test_time_outs_that_are_not_in_a_row_shorten_nothing() -> None:
    reader = reader_of(profile_of(*range(40), 100), Memory())
    for n in range(8):
        reader.memory.most_answered = 20 if n % 2 else 125
        reader.cycle()
    assert reader.device.learned.longest is None
    reader.cycle()
    reader.memory.most_answered = 20
    reader.cycle()
    reader.cycle()
    assert reader.device.learned.longest == 20


def test_where_there_are_no_transactions_one_time_out_ends_the_cycle_else_two() -> None:
    """An answer that comes late could be taken for the next one's."""
    for transactions, asked in ((True, 2), (False, 1)):
        reader = reader_of(profile_of(0, 100, 200, 300), Memory(silent=True))
        reader.memory.main.framing.transactions = transactions
        outcome = reader.cycle()
        assert len(reader.memory.asked) == outcome.unanswered == asked


def test_a_device_that_wants_it_is_hung_up_on_after_each_cycle() -> None:
    rests: list[int] = []
    for wanted in (True, False):
        memory = Memory()
        memory.rest = lambda: rests.append(1)  # type: ignore[attr-defined]
        reader = reader_of(profile_of(0, 100, close_after_cycle=wanted), memory)
        reader.cycle()
        reader.cycle()
    assert len(rests) == 2


def test_a_unit_is_blamed_for_its_silence_and_for_a_connection_that_it_cost_and_not_where_there_is_none() -> None:
    reset = Failure("reset", "connection lost")
    for failure, blamed in ((SILENCE, ["timeout"] * 2), (reset, ["reset"] * 2), (Failure("refused", ""), [])):
        memory, accused = Memory(), list[str]()

        def accuse(unit: int, outcome: str = "", accused: list[str] = accused) -> None:
            accused.append(outcome)

        memory.accuse = accuse  # type: ignore[method-assign]
        reader = reader_of(profile_of(0, 100, 200), memory)
        assert reader.device.begin(0, lambda outcome: None)
        while memory._queue:
            asker, _ = memory._queue.popleft()
            asker.failed(failure, NOW_US)
        assert accused == blamed


def test_a_cycle_that_is_under_way_goes_on_by_the_plan_that_it_began_with() -> None:
    reader, over = reader_of(profile_of(*range(20), 100), Memory()), list[Outcome]()
    assert reader.device.begin(0, over.append)
    reader.memory.work(steps=1)
    reader.device.learned.breaks.add(("holding", 5))
    reader.device.relearned(NOW_US)
    reader.memory.work()
    assert reader.memory.asked == [(0, 20), (100, 1)]
    [outcome] = over
    read = values(outcome.source.decode([outcome.received]).columns)
    assert read == {f"p{a}": (float(a), GOOD) for a in (*range(20), 100)}
    reader.cycle()
    assert reader.memory.asked == [(0, 5), (5, 15), (100, 1)], "and the next by the new one"
