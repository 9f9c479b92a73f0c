"""The alerting service on a real store, a real log and a real receiver."""

from __future__ import annotations

from telemetry.settings import Settings
from tests.alerting.line import acknowledge, alarm, alerting, finding, history, outcome, producing
from tests.fixtures.receiver import Receiver


async def test_a_finding_becomes_an_alarm_that_is_told_acknowledged_and_closed(
    plain_store: Settings, receiver: Receiver
) -> None:
    settings = plain_store.model_copy(update={"webhook_url": receiver.url})
    found = finding()
    async with producing(settings) as analytics, alerting(settings):
        await analytics.publish(found)
        assert (await alarm(settings, found.id))["state"] == "unacknowledged"
        await acknowledge(settings, found.id, "k1")
        assert await outcome(settings, "k1") == "done"
        await analytics.publish(finding(raised=False))
        await alarm(settings, found.id, "normal")
    assert await history(settings, found.id) == [
        ("raise", "normal", "unacknowledged", "analytics"),
        ("acknowledge", "unacknowledged", "acknowledged", "Li"),
        ("clear", "acknowledged", "normal", "analytics"),
    ]
