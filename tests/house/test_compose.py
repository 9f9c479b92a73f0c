"""docker-compose.yml is what the Compose specification allows, names only settings that exist, and has no default password."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from telemetry.files import load_plant
from telemetry.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return content


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).parent / "check-jsonschema")
    command = [tool, "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_valid_by_the_compose_specification(tmp_path: Path) -> None:
    result = validate(COMPOSE)
    assert result.returncode == 0, result.stdout
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text(encoding="utf-8").replace("restart: unless-stopped", "restarts: x", 1))
    assert validate(broken).returncode != 0


def test_every_vigil_variable_is_one_that_the_settings_know() -> None:
    known = {f"VIGIL_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"VIGIL_[A-Z_]+", COMPOSE.read_text(encoding="utf-8")))
    assert named, "no variable found: the pattern is wrong"
    assert named <= known


def test_every_service_gets_settings_that_read(monkeypatch: Any) -> None:
    for name, service in compose()["services"].items():
        values = {k: v for k, v in service.get("environment", {}).items() if k.startswith("VIGIL_")}
        for key, value in values.items():
            monkeypatch.setenv(key, re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value))
        assert Settings().log == values.get("VIGIL_LOG", "embedded:"), name
        for key in values:
            monkeypatch.delenv(key)


def test_no_password_stands_in_it_and_none_has_a_default() -> None:
    for name, service in compose()["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET", key) and "KAFKA" not in key:
                assert str(value).startswith("/run/secrets/"), f"{name}: {key}"
    for name, secret in compose()["secrets"].items():
        assert secret["file"] == f"./deploy/secrets/{name}"
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_secret_that_a_service_names_is_made_by_the_script(tmp_path: Path) -> None:
    script = tmp_path / "deploy" / "make-secrets"
    script.parent.mkdir()
    script.write_bytes((ROOT / "deploy" / "make-secrets").read_bytes())
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "mosquitto_passwd").write_text('#!/bin/sh\necho "$4:hash" > "$3"\n')
    (tools / "mosquitto_passwd").chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["sh", script], check=True, env=environment, capture_output=True)
    made = {path.name: path.read_text() for path in (script.parent / "secrets").iterdir()}
    assert set(compose()["secrets"]) == set(made)
    random = [text for name, text in made.items() if name not in ("mqtt_user", "mqtt_passwords")]
    assert len(set(random)) == len(random)
    assert all(len(text) >= 48 for text in random)
    subprocess.run(["sh", script], check=True, env=environment, capture_output=True)
    assert {path.name: path.read_text() for path in (script.parent / "secrets").iterdir()} == made


def test_ports_leave_the_machine_on_loopback_only() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name}: {port}"


def test_prometheus_scrapes_every_service_where_it_listens() -> None:
    scraped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    for name in ("edge", "ingest", "analyze", "alert", "console"):
        key = "VIGIL_LISTEN" if name == "console" else f"VIGIL_{name.upper()}_LISTEN"
        port = compose()["services"][name]["environment"][key].rpartition(":")[2]
        assert f"{name}:{port}" in scraped


def test_the_example_plant_is_good() -> None:
    assert [e.id for e in load_plant(ROOT / "deploy" / "plant.example.yaml").equipment] == ["lift-0001"]
