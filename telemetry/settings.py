"""Settings: flags over environment over file. Every `VIGIL_…` variable that exists is a field here.

A secret is never a value in a file that is committed: `…_file` fields name a file to read it from.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from telemetry.clock import Clock, parse_clock
from telemetry.errors import ConfigError, Fault
from telemetry.profile import Name
from telemetry.shard import parse_shard, split_edge

CONFIG_FILE: Final = Path("vigil.toml")
PREFIX: Final = "VIGIL_"
_SECRET_WORDS: Final = ("password", "secret", "token")
_OTHERS: Final = re.compile(r"VIGIL_(TEST|BENCH)_|VIGIL_(.+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")
"""Variables that are no settings: of the tests and benchmarks, and what Kubernetes sets for each service called vigil…"""


class Settings(BaseSettings):
    """What every service can be told. Names in the environment are these in capitals after VIGIL_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", toml_file=CONFIG_FILE, frozen=True)

    log: str = Field("embedded:", description="embedded: · kafka://host:port[,host:port] · kafkas://… (TLS)")
    log_user: str | None = None
    log_password: SecretStr | None = None
    log_password_file: Path | None = None
    log_ca_file: Path | None = None
    log_max_bytes: int = Field(4 << 30, gt=0, description="Byte cap of the embedded log.")
    log_partitions: int = Field(1, ge=1, description="Partitions of a topic that Vigil has to make.")
    log_replication: int = Field(1, ge=1, description="Replicas of a topic that Vigil has to make (Kafka).")
    store: str = Field("embedded:", repr=False, description="embedded: · postgresql://user@host:port/database")
    store_password: SecretStr | None = None
    store_password_file: Path | None = None
    state_dir: Path = Field(Path("var"), description="Spool, embedded log and database, locks.")
    plant: Path | None = None
    profiles_dir: Path | None = Field(None, description="Own profiles, searched before those in the package.")
    edge: Name = Field("edge-1", description="This edge's name.")
    edge_shard: str | None = Field(
        None, description="I/N: this process reads the I-th of N parts of the edge's equipment."
    )
    lang: Literal["zh", "en"] = "zh"
    clock: str = "system"
    listen: str = Field("127.0.0.1:8480", description="Console.")
    console_token: SecretStr | None = Field(None, description="Needed where the console does not listen on loopback.")
    console_token_file: Path | None = None
    console_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further Host and Origin values that are accepted; separated by commas in the environment."
    )
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    edge_listen: str = Field("127.0.0.1:8481", description="/healthz and /metrics of the edge.")
    ingest_listen: str = "127.0.0.1:8482"
    analyze_listen: str = "127.0.0.1:8483"
    alert_listen: str = "127.0.0.1:8484"
    metrics_token: SecretStr | None = Field(None, description="Asked for at /metrics of every service where it is set.")
    metrics_token_file: Path | None = None
    spool_max_bytes: int = Field(1 << 30, gt=0, description="The spool drops its oldest samples beyond this.")
    spool_max_age_s: float = Field(0.0, ge=0, description="The spool drops what is older. 0: whatever its age.")
    spool_policy: Literal["oldest", "newest"] = Field("oldest", description="What a full spool drops first.")
    backfill_samples_per_s: float = Field(
        50_000.0, gt=0, description="After an outage of the log, older records go out beside new ones at this rate."
    )
    unset_clock_hold_s: float = Field(
        60.0, ge=0, description="Readings wait so long for a clock that was never set; then their times are estimated."
    )
    webhook_url: str | None = Field(None, repr=False)
    webhook_secret: SecretStr | None = None
    webhook_secret_file: Path | None = None
    webhook_repeat_s: float = Field(300.0, gt=0, description="An unacknowledged alarm is told again after this.")
    grafana_url: str | None = Field(None, description="Grafana server that `vigil boards push` writes to.")
    grafana_token: SecretStr | None = Field(None, description="Token of a Grafana service account.")
    grafana_token_file: Path | None = None
    late_bound_days: float = Field(30.0, gt=0, description="Older samples go to the dead letters.")
    retention_days: float = Field(90.0, gt=0, description="Of raw samples; longer than late_bound_days.")
    retention_minutes_days: float = Field(400.0, gt=0, description="Of minutes; at least as long as raw samples.")
    retention_hours_days: float = Field(3_660.0, gt=0, description="Of hours; at least as long as minutes.")
    retention_events_days: float = Field(1_100.0, gt=0, description="Of events, findings and online history.")
    retention_dead_letters_days: float = Field(400.0, gt=0, description="Of dead letters that nobody replayed.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="before")
    @classmethod
    def _shard_has_its_own_name(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The first of two shards of `hall` is the edge `hall.1of2`, for everything that asks for the edge's name."""
        shard, edge = given.get("edge_shard"), given.get("edge", "edge-1")
        if not isinstance(shard, str) or not isinstance(edge, str) or split_edge(edge)[1] is not None:
            return given
        try:
            return {**given, "edge": parse_shard(shard).name(edge)}
        except ValueError:
            return given  # Said by _shard_reads.

    @field_validator("edge_shard")
    @classmethod
    def _shard_reads(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and split_edge(info.data.get("edge", ""))[1] not in (None, parse_shard(text)):
            raise ValueError(f"expected the shard that VIGIL_EDGE names ({info.data['edge']})")
        return text

    @field_validator("console_origins", mode="before")
    @classmethod
    def _origins_split(cls, given: Any) -> Any:
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @field_validator("listen", "edge_listen", "ingest_listen", "analyze_listen", "alert_listen")
    @classmethod
    def _listen_reads(cls, text: str) -> str:
        split_listen(text)
        return text

    @field_validator("store")
    @classmethod
    def _store_reads(cls, text: str) -> str:
        """libpq takes a mistyped URL for its key=value form and says it whole, with its password: so not as far as there."""
        if text == "embedded:" or text.startswith(("postgresql://", "postgres://")):
            return text
        if "://" in text or "=" not in text or text.startswith("embedded:"):
            raise ValueError("expected embedded: or postgresql://user@host:port/database")
        return text

    @field_validator("retention_days")
    @classmethod
    def _kept_longer_than_late_data_comes(cls, days: float, info: ValidationInfo) -> float:
        late_days = info.data.get("late_bound_days", 0.0)
        if days <= late_days:
            raise ValueError(f"expected more than VIGIL_LATE_BOUND_DAYS ({late_days:g})")
        return days

    @field_validator("clock")
    @classmethod
    def _clock_reads(cls, text: str) -> str:
        parse_clock(text)
        return text

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then vigil.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def the_clock(self) -> Clock:
        """The clock that `clock` names."""
        return parse_clock(self.clock)

    def secret(self, name: str) -> str | None:
        """The secret `name`, from its value or the file that `name_file` names.

        Raises ConfigError for a file that cannot be read or is empty: an empty secret would protect nothing.
        """
        value: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if value is not None:
            return value.get_secret_value()
        if path is None:
            return None
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([_fault(f"{name}_file", "a readable file", f"{path}: {error}")]) from error
        if not text:
            raise ConfigError([_fault(f"{name}_file", "a secret in the file", f"{path} is empty")])
        return text


def load_settings(**flags: Any) -> Settings:
    """The settings in force; flags that are None do not count. Raises ConfigError with every fault."""
    try:
        return Settings(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise ConfigError([_setting_fault(details) for details in error.errors(include_url=False)]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(CONFIG_FILE), 0, "", "TOML", str(error))]) from error


def stray_variables(names: Iterable[str]) -> list[str]:
    """Of the names of an environment those that look like a setting and are none, each said in a line.

    Not a fault: one environment may serve several versions of Vigil.
    """
    found = []
    for name in sorted(names):
        wanted = name.lower().removeprefix(PREFIX.lower())
        if wanted == name.lower() or wanted in Settings.model_fields or _OTHERS.match(name.upper()):
            continue
        near = get_close_matches(wanted, Settings.model_fields, n=1)
        hint = f"; is {PREFIX}{near[0].upper()} meant?" if near else ""
        found.append(f"{name}: ignored, there is no such setting{hint}")
    return found


def _setting_fault(details: Any) -> Fault:
    key = ".".join(map(str, details["loc"]))
    found = repr(details.get("input"))
    if details["type"] == "extra_forbidden":
        return _fault(key, "a setting that exists", "an unknown name")
    if any(word in key for word in _SECRET_WORDS) and not key.endswith("_file"):
        found = "a secret, not shown"
    if key == "store":
        found = "another address, not shown: it may hold a password"
    expected = str(details["msg"]).removeprefix("Value error, expected ").removeprefix("Input should be ")
    return _fault(key, expected.partition(", found ")[0], found)


def _fault(key: str, expected: str, found: str) -> Fault:
    return Fault("settings", 0, PREFIX + key.upper(), expected, found)


def split_listen(text: str) -> tuple[str, int]:
    """(host, port) of a listen setting. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"expected HOST:PORT, found {text!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
