"""What an audit of the edge found of secrets and keys: each test is a rule that was broken once."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from edge.mqtt_broker import make_broker
from edge.reach import make_reach
from telemetry.errors import ConfigError
from telemetry.plant import Endpoint, parse_address
from tests.fixtures.certificates import make_authority, require_openssl


def test_a_secret_that_is_no_text_is_a_fault_of_its_key_and_is_not_shown(tmp_path: Path) -> None:
    """When a changed file brings it, the edge goes on by the old one instead of ending."""
    (tmp_path / "secret").write_bytes(b"hush\xff\xfe")
    endpoint = Endpoint(username="env:HOME", password=f"file:{tmp_path}/secret")
    with pytest.raises(ConfigError, match=r"endpoints\.mqtt://127\.0\.0\.1:1883\.password") as raised:
        make_broker(parse_address("mqtt://127.0.0.1/e"), endpoint, edge="edge-1", file="plant.yaml")
    assert "hush" not in str(raised.value)


def test_a_key_that_wants_a_pass_phrase_is_a_fault_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    """OpenSSL asks at the terminal if there is one, and the edge would wait for it for ever."""
    require_openssl("a key with a pass phrase")
    ours = make_authority(tmp_path / "ours").certify("IP:127.0.0.1")
    locked = tmp_path / "locked.key"
    lock = ["openssl", "rsa", "-aes256", "-passout", "pass:phrase", "-in", str(ours.key), "-out", str(locked)]
    subprocess.run(lock, check=True, capture_output=True, timeout=60)
    endpoint = Endpoint(ca_file=str(ours.file), cert_file=str(ours.file), key_file=str(locked))
    child, terminal = pty.fork()
    if not child:
        try:
            make_reach(parse_address("modbus+tls://127.0.0.1/1"), endpoint, file="plant.yaml")
        except ConfigError as error:
            os._exit(0 if "key_file" in str(error) else 2)
        os._exit(1)
    ready, _, _ = select.select([terminal], [], [], 10)
    said = b""
    with suppress(OSError):  # it ended without a word
        said = os.read(terminal, 1_000) if ready else b"nothing within 10 s"
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert said == b""
    assert os.waitstatus_to_exitcode(status) == 0
