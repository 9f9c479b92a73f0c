"""Where equipment is reached: addresses and endpoints, taken apart once and compared by one spelling.

modbus+tcp://HOST[:502]/UNIT · modbus+tls://HOST[:802]/UNIT · modbus+rtuovertcp://HOST[:502]/UNIT ·
modbus+rtu:///dev/ttyUSB0/UNIT?baud=9600&parity=E&stop=1&data=8 (or …/dev/ttyUSB0?unit=UNIT) ·
mqtt://HOST[:1883]/PREFIX · mqtts://HOST[:8883]/PREFIX

Invariant: what several equipments share (a connection, a serial line, a broker) has one `endpoint`, however it is written.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

SERIAL: Final = "modbus+rtu"
DEFAULT_PORTS: Final = {
    "modbus+tcp": 502, "modbus+tls": 802, "modbus+rtuovertcp": 502, SERIAL: 0, "mqtt": 1883, "mqtts": 8883,
}  # fmt: skip
"""Every scheme, and its port; a serial line has none."""
MODBUS: Final = tuple(scheme for scheme in DEFAULT_PORTS if scheme.startswith("modbus+"))
MQTT: Final = ("mqtt", "mqtts")

_OPTIONS: Final = {
    "baud": ("1..9999999", re.compile(r"[1-9][0-9]{0,6}")),
    "parity": ("N, E or O", re.compile(r"[NEO]")),
    "stop": ("1 or 2", re.compile(r"[12]")),
    "data": ("7 or 8", re.compile(r"[78]")),
    "unit": ("1..247", re.compile(r"[1-9][0-9]?|1[0-9][0-9]|2[0-3][0-9]|24[0-7]")),
}
"""What may stand behind the ? of a serial line, and what its values are."""


@dataclass(frozen=True, slots=True)
class Address:
    """An equipment's address, taken apart."""

    scheme: str
    host: str
    """Empty for a serial line."""
    port: int
    """0 for a serial line."""
    unit: int
    prefix: str
    options: Mapping[str, str]
    """Line settings of a serial line as they are written: baud, parity, stop, data."""
    endpoint: str
    """scheme://host:port, or modbus+rtu:///dev/…: what several equipments may share."""
    device: str = ""
    """Path of a serial line's device; empty for anything else."""

    @property
    def is_modbus(self) -> bool:
        """Whether a Modbus driver reads it (else MQTT)."""
        return self.scheme in MODBUS

    @property
    def is_serial(self) -> bool:
        """Whether it is a unit of a serial line."""
        return self.scheme == SERIAL


def split_address(text: str) -> SplitResult:
    """An address or endpoint in its parts. Raises ValueError, which never shows a password."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("expected a host (an IPv6 one in brackets), found none that can be read") from error
    if "@" in parts.netloc:
        raise ValueError("expected no user or password (name them under endpoints as env: or file:), found one")
    return parts


def parse_address(text: str) -> Address:
    """Takes an address apart. Raises ValueError that says what was expected."""
    parts = split_address(text)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"expected {', '.join(f'{scheme}://…' for scheme in DEFAULT_PORTS)}, found {text!r}")
    if parts.scheme == SERIAL:
        return _serial(text, parts)
    if parts.query:
        raise ValueError(f"expected no options behind ?, found {', '.join(dict(parse_qsl(parts.query)))}")
    host, port = _host(text, parts)
    path = parts.path.strip("/")
    unit, prefix = 1, ""
    if parts.scheme in MODBUS:
        if parts.fragment or (path and not (_whole(path) and int(path) <= 255)):
            raise ValueError(f"expected a unit id in 0..255 after the host, found {path!r}")
        unit = int(path) if path else 1
    elif not path or "#" in text or "+" in path:
        raise ValueError(f"expected a topic prefix without wildcards after the host, found {text!r}")
    else:
        prefix = path
    return Address(parts.scheme, host, port, unit, prefix, {}, f"{parts.scheme}://{_shown(host)}:{port}")


def endpoint_of(key: str) -> str:
    """An endpoint key as `Address.endpoint` spells it. Raises ValueError that says what was expected."""
    parts = split_address(key)
    if parts.scheme == SERIAL and not parts.query:
        return _serial(key, parts._replace(query="unit=1")).endpoint
    if parts.path.strip("/") or parts.query or parts.fragment:
        expected = (
            f"{SERIAL}:///dev/… without unit or options"
            if parts.scheme == SERIAL
            else "SCHEME://HOST[:PORT] without unit or topic"
        )
        raise ValueError(f"expected {expected}, found {key!r}")
    return parse_address(f"{key.rstrip('/')}/{'1' if key.startswith('modbus+') else 'any'}").endpoint


def host_and_port(text: str, *, port: int) -> tuple[str, int]:
    """A host and its port, `port` where it says none. Raises ValueError that says what was expected."""
    expected = "expected HOST or HOST:PORT (an IPv6 host in brackets)"
    try:
        parts = urlsplit(f"//{text}")
        found = parts.port
    except ValueError as error:
        raise ValueError(f"{expected}, found {text!r}") from error
    if not parts.hostname or found == 0 or "@" in text or parts.path or parts.query or parts.fragment or " " in text:
        raise ValueError(f"{expected}, found {'a user or password' if '@' in text else repr(text)}")
    return parts.hostname, port if found is None else found


def _host(text: str, parts: SplitResult) -> tuple[str, int]:
    try:
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(f"expected a port in 1..65535, found {text!r}") from error
    if port == 0:
        raise ValueError(f"expected a port in 1..65535, found {text!r}")
    if not parts.hostname:
        raise ValueError(f"expected a host, found {text!r}")
    return parts.hostname, port


def _serial(text: str, parts: SplitResult) -> Address:
    """A unit of a serial line: the last part of the path where it is a number, or the option `unit`."""
    options = _line_options(parts.query)
    path, unit = parts.path.rstrip("/"), options.pop("unit", None)
    if unit is None:
        device, _, last = path.rpartition("/")
        path, unit = (device, last) if _whole(last) else (path, "1")
    if parts.netloc or parts.fragment or not path.startswith("/") or not path.strip("/"):
        raise ValueError(f"expected {SERIAL}:///dev/… (three slashes and the device's path), found {text!r}")
    if not 1 <= int(unit) <= 247:
        raise ValueError(f"expected a unit id in 1..247 after the device, found {unit!r}")
    device = "/" + posixpath.normpath(path).strip("/")
    return Address(SERIAL, "", 0, int(unit), "", options, f"{SERIAL}://{device}", device)


def _line_options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    wrong = [f"{name}={text}" for name, text in pairs if names.count(name) > 1 or not _is_option(name, text)]
    if wrong:
        expected = "; ".join(f"{name} {said}" for name, (said, _) in _OPTIONS.items())
        raise ValueError(f"expected each option once, of {expected}, found {', '.join(wrong)}")
    return dict(pairs)


def _is_option(name: str, text: str) -> bool:
    return name in _OPTIONS and _OPTIONS[name][1].fullmatch(text) is not None


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 7


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
