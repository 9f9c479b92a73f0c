"""Settings: flags over environment over file, secrets by file, every fault at once and no secret in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.errors import ConfigError
from telemetry.log import open_log
from telemetry.settings import Settings, is_loopback, load_settings, split_listen, stray_variables


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VIGIL_{name.upper()}", raising=False)


def test_flags_win_over_environment_and_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (load_settings().lang, load_settings().log_level) == ("zh", "info")
    (tmp_path / "vigil.toml").write_text('lang = "en"\nlog_level = "debug"\nedge = "from-file"\n')
    assert (load_settings().lang, load_settings().log_level) == ("en", "debug")
    monkeypatch.setenv("VIGIL_LOG_LEVEL", "warning")
    monkeypatch.setenv("VIGIL_EDGE", "from-environment")
    found = load_settings(edge="from-flag", lang=None)
    assert (found.lang, found.log_level, found.edge) == ("en", "warning", "from-flag")


def test_every_bad_value_is_told_at_once_by_the_name_that_its_user_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "VIGIL_LANG": "fr",
        "VIGIL_LOG_MAX_BYTES": "-1",
        "VIGIL_CLOCK": "scaled:now,fast",
        "VIGIL_LISTEN": "8480",
        "VIGIL_EDGE": "Edge 1",
        "VIGIL_RETENTION_DAYS": "10",
    }
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert {fault.key for fault in caught.value.faults} == set(bad)
    assert "VIGIL_CLOCK: expected scaled" in str(caught.value) or "expected system or scaled" in str(caught.value)
    assert "VIGIL_LISTEN: expected HOST:PORT" in str(caught.value)
    assert "VIGIL_RETENTION_DAYS: expected more than VIGIL_LATE_BOUND_DAYS (30)" in str(caught.value)


def test_a_mistyped_store_is_refused_without_being_shown() -> None:
    for text in (
        "postgress://vigil:hunter2@db/vigil",
        "postgres:/db/hunter2",
        "embedded:hunter2",
        "embedded:?p=hunter2",
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings(store=text)
        assert "VIGIL_STORE: expected embedded: or postgresql://user@host:port/database" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_an_address_of_the_store_or_the_webhook_is_not_shown_with_the_settings() -> None:
    settings = load_settings(store="postgresql://vigil:hunter2@db/vigil", webhook_url="https://chat.example/hunter2")
    assert "hunter2" not in repr(settings)


def test_a_mistyped_log_is_shown_without_a_login_in_it() -> None:
    with pytest.raises(ConfigError, match=r"VIGIL_LOG: expected .*, found 'kafkaz://…@broker:9092'") as caught:
        open_log(load_settings(log="kafkaz://vigil:hunter@2@broker:9092"))
    assert "hunter" not in str(caught.value)


def test_a_fault_says_once_what_was_expected_and_once_what_was_found() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(edge_shard="3/2", spool_policy="old")
    said = str(caught.value).splitlines()
    assert any(line.endswith("VIGIL_SPOOL_POLICY: expected 'oldest' or 'newest', found 'old'") for line in said)
    assert any("VIGIL_EDGE_SHARD: expected I/N" in line and line.count("'3/2'") == 1 for line in said)


def test_an_unknown_name_in_the_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "vigil.toml").write_text('lagn = "en"\n')
    with pytest.raises(ConfigError, match="VIGIL_LAGN: expected a setting that exists"):
        load_settings()


def test_a_variable_that_is_no_setting_is_told_with_the_one_that_was_meant() -> None:
    every = [f"VIGIL_{name.upper()}" for name in Settings.model_fields]
    assert stray_variables([*every, "vigil_lang", "PATH", "VIGILANT_X", "VIGIL"]) == []
    assert stray_variables(["VIGIL_SPOOL_MAXBYTES", "VIGIL_QQQQ"]) == [
        "VIGIL_QQQQ: ignored, there is no such setting",
        "VIGIL_SPOOL_MAXBYTES: ignored, there is no such setting; is VIGIL_SPOOL_MAX_BYTES meant?",
    ]


def test_variables_of_others_are_nobodys_mistake() -> None:
    kubernetes = ["VIGIL_SERVICE_HOST", "VIGIL_PORT", "VIGIL_PORT_8480_TCP_ADDR", "VIGIL_EDGE_SERVICE_PORT_HTTP"]
    assert stray_variables([*kubernetes, "VIGIL_TEST_TIMESCALE_URL", "VIGIL_BENCH_TELEGRAF"]) == []
    assert len(stray_variables(["VIGIL_PORTS", "VIGIL_TESTS"])) == 2


def test_a_file_that_is_no_toml_is_a_fault_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "vigil.toml").write_text("lang = \n")
    with pytest.raises(ConfigError, match=r"vigil\.toml:0: : expected TOML, found .*line 1"):
        load_settings()


def test_a_secret_comes_from_its_value_or_its_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    assert load_settings().secret("log_password") is None
    assert load_settings(log_password_file=file).secret("log_password") == "from-file"
    monkeypatch.setenv("VIGIL_LOG_PASSWORD", "hidden-value")
    settings = load_settings(log_password_file=file)
    assert settings.secret("log_password") == "hidden-value"
    assert "hidden-value" not in repr(settings)
    (tmp_path / "vigil.toml").write_text("metrics_token = 123456\n")
    with pytest.raises(ConfigError, match="VIGIL_METRICS_TOKEN") as caught:
        load_settings()
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [(None, "a readable file"), (" \n", "a secret in the file")])
def test_a_secret_file_that_is_missing_or_empty_is_a_fault(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    settings = load_settings(metrics_token_file=file)
    with pytest.raises(ConfigError, match=f"VIGIL_METRICS_TOKEN_FILE: expected {said}"):
        settings.secret("metrics_token")


def test_origins_are_separated_by_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_CONSOLE_ORIGINS", "https://a.example, b.example:8443 ,")
    assert load_settings().console_origins == ("https://a.example", "b.example:8443")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.lang = "en"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:8480", "::1", 8480), ("localhost:0", "localhost", 0)],
)
def test_a_listen_setting_is_host_and_port(text: str, host: str, port: int) -> None:
    assert split_listen(text) == (host, port)


@pytest.mark.parametrize("text", ["", "8480", ":8480", "host:", "host:http", "host:65536", "host:-1"])
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        split_listen(text)


def test_only_addresses_of_this_machine_are_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "10.0.0.1", "127.evil.example", "example.com"]))  # noqa: S104
