"""The demonstration plant as a process: `python -m simulators.demo --state DIR --broker 127.0.0.1:PORT [--data DIR]`.

Writes DIR/demo-plant.yaml once its Modbus ports are served, then lives until SIGTERM. Ports are chosen at the first start
and kept in DIR/demo-ports.json while they are free, so that addresses, and history with them, stay.

Within the first minute a few faults show what an alarm is; from then on some come and go every few minutes.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import click
import numpy as np
import structlog

from simulators.demo_equipment import LIFT_DOOR, PUMP, Unit
from simulators.demo_plant import RECORDED, SEED, ModbusPorts, demo_groups, demo_plant, recorded_address
from simulators.faults import COMMS_LOSS, Fault, Rhythm, rhythm_faults
from simulators.feeds import Feed, read_feed
from simulators.live import play
from simulators.plant import Group, SimulatedPlant
from simulators.replay import replay_round
from telemetry.clock import US_PER_S, Clock, time_us
from telemetry.files import load_profile
from telemetry.local import free_port, is_free, write_whole
from telemetry.service import configure_logging, wait_until
from telemetry.settings import load_settings, split_listen

EARLY: Final = (
    Fault(3.0, 110.0, "lift-03", "entrapment"),
    Fault(5.0, 150.0, "boiler-01", "flame-lost"),
    Fault(6.0, 75.0, "forklift-02", "overspeed"),
    Fault(8.0, 100.0, "forklift-05", "no-seat-belt"),
    Fault(10.0, 120.0, "lift-08", COMMS_LOSS),
    Fault(12.0, 130.0, "lift-06", "door-held-open"),
)
"""Seconds after the start: the edge needs a few before it hears of them."""
RHYTHM: Final = Rhythm(every_s=100.0, lasting_s=(45.0, 150.0), after_s=120.0)
QUIET: Final = frozenset({"battery-low", "inspection", "out-of-service", "stack-drift", "short-cycling"})
"""Kinds that the rhythm leaves out: they show nothing within a few minutes."""
BIRTH: Final = "2026-01-01T00:00:00+00:00"
"""The fleet's counters grow from here."""
PORTS_FILE: Final = "demo-ports.json"
PLANT_FILE: Final = "demo-plant.yaml"
DOOR_FILE: Final = "elevator/elevator-4hz.csv"
PUMP_FILE: Final = "skab/valve1/0.csv"
RETRY_S: Final = 2.0

log = structlog.get_logger()


def demo_faults(groups: list[Group]) -> Iterator[Fault]:
    """The early faults, then the rhythm, for ever."""
    choices = [(name, [k for k in group.kinds if k not in QUIET]) for group in groups for name in group.ids]
    return chain(EARLY, rhythm_faults(RHYTHM, choices, np.random.default_rng([SEED, 99])))


def choose_ports(state: Path) -> ModbusPorts:
    """The ports of the last start where they are still free, else others. Written to the state directory."""
    state.mkdir(parents=True, exist_ok=True)
    path = state / PORTS_FILE
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    chosen: dict[str, int] = {}
    for name in ("sola", "steam", "recorded"):
        wanted = kept.get(name, 0)
        chosen[name] = wanted if isinstance(wanted, int) and is_free(wanted) else free_port()
    write_whole(path, json.dumps(chosen))
    return ModbusPorts(**chosen)


async def serve_demo(state: Path, broker: str, *, data: Path | None, clock: Clock, stop: asyncio.Event) -> None:
    """Serves the plant until `stop`. `broker` is HOST:PORT. Raises OSError when a port cannot be had."""
    ports, url = choose_ports(state), f"mqtt://{broker}"
    groups = demo_groups(url, ports)
    for group in groups:
        group.fleet.age((clock.now_us() - time_us(BIRTH)) / (86_400 * US_PER_S))
    plant = SimulatedPlant(groups, demo_faults(groups))
    feeds = await asyncio.to_thread(recorded_feeds, data) if data is not None else {}

    def serving() -> None:
        write_whole(state / PLANT_FILE, demo_plant(url, ports, recorded=tuple(feeds)))
        equipment = sum(len(group.ids) for group in groups) + len(feeds)
        log.info("demonstration plant", equipment=equipment, file=str(state / PLANT_FILE))

    async with asyncio.TaskGroup() as tasks:
        for unit, feed in feeds.items():
            address = recorded_address(unit, url, ports)
            tasks.create_task(_replay_for_ever(unit, feed, address, clock=clock, stop=stop))
        await play(plant, clock=clock, stop=stop, serving=serving)


def recorded_feeds(data: Path) -> dict[Unit, Feed]:
    """The recorded feeds that the folder has. Raises ConfigError when one is there and cannot be read."""
    found = {}
    for unit, name in ((LIFT_DOOR, DOOR_FILE), (PUMP, PUMP_FILE)):
        if (data / name).is_file():
            found[unit] = read_feed(data / name, load_profile(RECORDED[unit.id]))
        else:
            log.warning("no recorded feed", equipment=unit.id, file=str(data / name))
    return found


async def _replay_for_ever(unit: Unit, feed: Feed, address: str, *, clock: Clock, stop: asyncio.Event) -> None:
    """Plays a feed round and round; waits for its broker or port, and begins again when it was lost."""
    profile, said = load_profile(RECORDED[unit.id]), ""
    while not stop.is_set():
        try:
            await replay_round(feed, address, profile, clock=clock, stop=stop)
        except OSError as error:
            if str(error) != said:
                said = str(error)
                log.warning("recorded feed waits", equipment=unit.id, address=address, why=said)
            await wait_until(stop, RETRY_S)


@click.command()
@click.option("--state", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--broker", required=True, help="HOST:PORT of the MQTT broker.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Recorded feeds to replay.")
def main(state: Path, broker: str, data: Path | None) -> None:
    """Serves the demonstration plant until SIGTERM."""
    settings = load_settings(state_dir=state)
    configure_logging(settings)
    split_listen(broker)
    asyncio.run(_main(state, broker, data, settings.the_clock))


async def _main(state: Path, broker: str, data: Path | None, clock: Clock) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_demo(state, broker, data=data, clock=clock, stop=stop)
    log.info("stopped")


if __name__ == "__main__":
    main()
