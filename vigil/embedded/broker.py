"""The embedded MQTT broker, a process of its own: `python -m vigil.embedded.broker --listen 127.0.0.1:1883`.

For one machine: it listens on loopback only, asks for no password, keeps sessions in memory. A plant whose devices
come over a network takes a broker of its own (mosquitto, say), with TLS and users.

Stops on SIGTERM or SIGINT in under 2 s, and when its parent is gone. Exit status: 0 stopped, 1 the port is taken,
2 not a loopback address.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Final

import click

from telemetry.settings import is_loopback, split_listen
from vigil.embedded.sessions import AnyoneOnLoopback, DurableBroker
from vigil.processes import follow_parent

STOP_WITHIN_S: Final = 1.5
log = logging.getLogger("broker")


async def serve(host: str, port: int, stop: asyncio.Event) -> None:
    """Runs a broker on a loopback address until `stop` is set. Raises OSError when it cannot listen."""
    plugin = f"{AnyoneOnLoopback.__module__}.{AnyoneOnLoopback.__qualname__}"
    shown = f"[{host}]" if ":" in host else host
    broker = DurableBroker({"listeners": {"default": {"bind": f"{shown}:{port}"}}, "plugins": {plugin: {}}})
    try:
        await broker.start()
    except Exception as error:  # amqtt wraps every reason in one class of its own
        raise OSError(f"{shown}:{port}: {error.__cause__ or error}") from error
    log.info("listening on %s:%d", shown, port)
    try:
        await stop.wait()
    finally:
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await broker.shutdown()
        except TimeoutError:
            log.warning("connections still open after %s s: left to the kernel", STOP_WITHIN_S)


@click.command()
@click.option("--listen", default="127.0.0.1:1883", show_default=True, help="HOST:PORT on loopback.")
def main(listen: str) -> None:
    """Runs the embedded MQTT broker until SIGTERM."""
    try:
        host, port = split_listen(listen)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not is_loopback(host):
        raise click.BadParameter(f"expected a loopback address (this broker asks for no password), found {listen}")
    _configure_logging()
    follow_parent(signal.SIGTERM)
    try:
        asyncio.run(_main(host, port))
    except OSError as error:
        log.error("cannot listen: %s", error)
        sys.exit(1)


async def _main(host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(host, port, stop)
    log.info("stopped")


def _configure_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("transitions").setLevel(logging.ERROR)
    logging.getLogger("amqtt").setLevel(logging.WARNING)
    for name in ("amqtt.broker", "amqtt.mqtt.protocol.handler"):
        logging.getLogger(name).addFilter(_not_news)


def _not_news(record: logging.LogRecord) -> bool:
    """Somebody who looks whether the port is open is not worth a line."""
    return not any(text in record.getMessage() for text in ("No data from", "Failed to initialize", "first packet"))


if __name__ == "__main__":
    main()
