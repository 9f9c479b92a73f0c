"""What is learned of long requests never makes a point unreadable."""

from __future__ import annotations

from edge.learned import SHORTEST, Learned
from edge.plan import Limits, Request, limits_of, plan
from telemetry.profile import ModbusDefaults
from tests.edge.build import points_of
from tests.edge.profiles import make_profile

WIDE = make_profile(
    {
        "name": {"kind": "text", "modbus": {"address": 0, "type": "string", "length": 20}},
        **{f"p{n}": {"modbus": {"address": 20 + n}} for n in range(40)},
    }
)


def test_a_point_longer_than_what_a_device_was_found_to_answer_is_still_asked_for() -> None:
    """It may answer it all the same; a plan that cannot be made would end the edge."""
    limits = Learned(longest=SHORTEST).apply(limits_of(ModbusDefaults()), points_of(WIDE))
    assert limits.max_registers == 20
    requests = plan(points_of(WIDE), limits)
    assert {name for request in requests for name in request.points} == set(WIDE.points)
    assert max(request.count for request in requests) == 20


def test_a_request_of_one_point_is_not_what_makes_a_device_slow() -> None:
    learned = Learned()
    assert not learned.shorten(Request("holding", 0, 20, ("name",)))
    assert learned.longest is None
    assert learned.shorten(Request("holding", 0, 20, ("name", "p0")))
    assert learned.longest == 10
    assert not learned.shorten(Request("coil", 0, 2_000, ("a", "b")))
    assert Learned().apply(Limits(), {}).max_registers == Limits().max_registers
