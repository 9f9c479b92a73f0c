"""The relay does to connections what its kinds of fault say."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.relay import Link, Relay
from tests.fixtures.waiting import eventually

DRAWN = random.Random(1)
SILENT_S = 0.3


class Echo:
    """Answers what it hears, and remembers it."""

    def __init__(self, listening: socket.socket) -> None:
        self.heard = bytearray()
        self._listening = listening
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := client.recv(4096):
                self.heard += data
                client.sendall(data)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for client in self._open:
            client.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    found = Echo(socket.create_server(("127.0.0.1", 0)))
    yield found
    found.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as found:
        yield found


@pytest.fixture
def link(relay: Relay, echo: Echo) -> Link:
    return relay.add("echo", echo._listening.getsockname()[1])


def call(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=5)


def says(client: socket.socket, data: bytes = b"hello") -> bytes:
    """What comes back; nothing, when nothing comes for a moment. Raises ConnectionResetError."""
    client.settimeout(5)
    client.sendall(data)
    client.settimeout(SILENT_S)
    try:
        return client.recv(4096)
    except TimeoutError:
        return b""


def begin(relay: Relay, link: Link, kind: str) -> None:
    relay.do(lambda: link.begin(kind, DRAWN))


def end(relay: Relay, link: Link, kind: str) -> None:
    relay.do(lambda: link.end(kind))


def is_reset(client: socket.socket) -> bool:
    """Whether the connection was reset, not closed."""
    client.settimeout(5)
    try:
        return client.recv(1) == b"unreachable"
    except ConnectionResetError:
        return True


def test_a_link_carries_both_ways_until_either_side_ends_it(link: Link) -> None:
    with call(link) as client:
        assert says(client) == b"hello"
    eventually(lambda: not link.connections, 5, "the connection stays")


def test_a_link_reaches_a_unix_socket(relay: Relay, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    echo = Echo(listening)
    with call(relay.add("unix", tmp_path / "s")) as client:
        assert says(client) == b"hello"
    echo.close()


def test_cut_resets_connections_and_takes_no_new_ones_until_it_is_over(relay: Relay, link: Link) -> None:
    with call(link) as client, call(link) as other:
        assert says(client) == says(other) == b"hello"
        begin(relay, link, "cut")
        assert is_reset(client)
        assert is_reset(other)
        with suppress(ConnectionResetError), call(link) as late:  # it may be reset before it is made
            assert is_reset(late)
        end(relay, link, "cut")
        with call(link) as again:
            assert says(again) == b"hello"


def test_tear_lets_half_of_the_next_message_through_and_resets(relay: Relay, link: Link, echo: Echo) -> None:
    with call(link) as client:
        assert says(client) == b"hello"
        begin(relay, link, "tear")
        client.sendall(b"12345678")
        assert is_reset(client)
    eventually(lambda: bytes(echo.heard) == b"hello1234", 5, lambda: str(bytes(echo.heard)))


def test_deaf_delivers_what_the_client_says_and_not_the_answer(relay: Relay, link: Link, echo: Echo) -> None:
    with call(link) as client:
        assert says(client) == b"hello"
        begin(relay, link, "deaf")
        assert says(client, b"again") == b""
        assert bytes(echo.heard) == b"helloagain"
        with call(link) as other:
            assert says(other) == b"hello", "only connections that stood when it began"
        end(relay, link, "deaf")
        assert is_reset(client)


@pytest.mark.parametrize("kind", ["half-open", "black-hole"])
def test_half_open_connections_carry_nothing_and_nobody_is_told(
    relay: Relay, link: Link, echo: Echo, kind: str
) -> None:
    with call(link) as client:
        assert says(client) == b"hello"
        begin(relay, link, kind)
        assert says(client, b"lost") == b""
        assert bytes(echo.heard) == b"hello"
        with call(link) as other:
            assert says(other) == b"hello", "new connections work"
        end(relay, link, kind)
        if kind == "half-open":
            assert is_reset(client)
        else:
            assert says(client, b"lost") == b"", "for good"


def test_delay_makes_answers_late_and_keeps_their_order(relay: Relay, link: Link) -> None:
    with call(link) as client:
        begin(relay, link, "delay")
        began = time.monotonic()
        client.sendall(b"1")
        client.sendall(b"2")
        client.settimeout(5)
        found = b""
        while len(found) < 2:
            found += client.recv(10)
        assert found == b"12"
        assert time.monotonic() - began >= 2 * 0.05
        end(relay, link, "delay")


def test_throttle_bounds_the_rate(relay: Relay, link: Link) -> None:
    with call(link) as client:
        begin(relay, link, "throttle")
        began, sent = time.monotonic(), b"x" * 30_000
        client.sendall(sent)
        client.settimeout(5)
        found = 0
        while found < len(sent):
            found += len(client.recv(4096))
        assert time.monotonic() - began >= 2 * len(sent) / 150_000 * 0.9
        end(relay, link, "throttle")


def test_an_unknown_kind_is_refused(link: Link) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        link.begin("flood", DRAWN)
