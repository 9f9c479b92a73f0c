"""Fixtures of the whole suite: one per real component, each of which says which it picked (tests/fixtures)."""

from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.parts",
    "tests.fixtures.mosquitto",
    "tests.fixtures.broker",
    "tests.fixtures.kafka",
    "tests.fixtures.store",
    "tests.fixtures.receiver",
    "tests.fixtures.browser",
]
