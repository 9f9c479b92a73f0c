"""Fixtures of the whole suite: one per real component, each of which says which it picked (tests/fixtures)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("vigil", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vigil")

pytest_plugins = [
    "tests.fixtures.ast_parsing",
    "tests.fixtures.parts",
    "tests.fixtures.mosquitto",
    "tests.fixtures.libmodbus",
    "tests.fixtures.broker",
    "tests.fixtures.kafka",
    "tests.fixtures.store",
    "tests.fixtures.places",
    "tests.fixtures.pglite",
    "tests.fixtures.receiver",
    "tests.fixtures.browser",
]
