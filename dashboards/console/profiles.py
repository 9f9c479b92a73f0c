"""The profiles, for the names of codes. The console shows a code as it is where its profile cannot be read."""

from __future__ import annotations

from pathlib import Path

import structlog

from dashboards.console.codes import FindProfile
from telemetry.errors import ConfigError
from telemetry.files import load_profile
from telemetry.profile import Profile

log = structlog.get_logger()


def profile_finder(profiles_dir: Path | None) -> FindProfile:
    """Finds a profile by name in `profiles_dir`, then in the package; None where there is none that can be read."""

    def find(name: str) -> Profile | None:
        try:
            return load_profile(name, profiles_dir=profiles_dir)
        except ConfigError as error:
            log.warning("codes stay unnamed", profile=name, why=str(error))
            return None

    return find
