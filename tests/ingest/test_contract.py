"""The SQL surface of contracts.md and docs/sql.md: the same names and columns on both flavours; and the register's shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telemetry.settings import Settings
from tests.fixtures.store import execute

PROMISED = {
    "equipment": "id class profile area owner user maintainer status",
    "samples": "equipment point time value quality signal_id",
    "latest": "equipment point time value quality",
    "samples_1m": "equipment point time avg min max count count_bad last signal_id",
    "samples_1h": "equipment point time avg min max count count_bad last signal_id",
    "events": "equipment time scheme code state",
    "findings": "id equipment point detector",
    "alarms": "id equipment point detector state priority raised_at acknowledged_at acknowledged_by cleared_at owner"
    " maintainer area",
    "alarm_history": "alarm_id at from_state to_state actor note",
    "ingest_progress": "edge epoch accepted missing samples",
}
"""contracts.md, SQL."""
REGISTER = {
    "area": "id parent_id level name_zh name_en boundary",
    "organisation": "id credit_code name_zh name_en size industry place_type area_id address",
    "organisation_kind": "organisation_id kind",
    "equipment": "id class profile registration_code manufacturer_code serial use_certificate public_code model rated"
    " made_on installed_on address latitude longitude monitoring_fitted_on",
    "equipment_party": "equipment_id organisation_id role valid_from valid_to",
    "equipment_area": "equipment_id area_id valid_from valid_to",
    "equipment_status": "equipment_id status valid_from valid_to document",
    "person": "name phone login",
    "appointment": "person_id organisation_id area_id role valid_from valid_to",
    "audit": "at actor action subject before after",
}
"""domain/register.md, from the first migration."""
DATED = ("equipment_party", "equipment_area", "equipment_status", "appointment")
PAGE = Path(__file__).parents[2] / "docs" / "sql.md"


def columns(store: Settings, schema: str) -> dict[str, dict[str, str]]:
    rows = execute(
        store.store,
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = %s"
        " ORDER BY table_name, ordinal_position",
        (schema,),
    )
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def test_every_promised_name_is_a_column_on_both_flavours(store: Settings) -> None:
    found = columns(store, "public")
    for view, names in PROMISED.items():
        assert set(names.split()) <= set(found[view]), view
    assert found["samples"]["time"] == "timestamp with time zone"
    assert found["samples"]["value"] == "double precision"


def test_both_flavours_have_the_same_views_columns_and_types(plain_store: Settings, timescale_store: Settings) -> None:
    assert columns(plain_store, "public") == columns(timescale_store, "public")
    assert columns(plain_store, "register") == columns(timescale_store, "register")


def test_the_page_of_the_sql_surface_names_every_view(plain_store: Settings) -> None:
    first_cells = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == set(
        columns(plain_store, "public")
    )


def test_the_register_has_its_shape_and_every_link_is_dated(plain_store: Settings) -> None:
    found = columns(plain_store, "register")
    for table, names in REGISTER.items():
        assert set(names.split()) <= set(found[table]), table
    for table in DATED:
        assert found[table]["valid_from"] == found[table]["valid_to"] == "timestamp with time zone"


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("area", "city district street village grid"),
        (
            "organisation_kind",
            "use_unit maintainer manufacturer filler inspection_body regulator supervision_office street_government",
        ),
        ("equipment_party", "owner user maintainer"),
        ("equipment_status", "in_use stopped_by_order unregistered inspection_overdue scrapped"),
    ],
)
def test_levels_kinds_roles_and_statuses_are_those_of_the_register(
    plain_store: Settings, constraint: str, words: str
) -> None:
    rows = execute(
        plain_store.store,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND conrelid = %s::regclass"
        " AND pg_get_constraintdef(oid) LIKE '%%ARRAY%%'",
        (f"register.{constraint}",),
    )
    [(definition,)] = rows
    assert set(re.findall(r"'(\w+)'::text", definition)) == set(words.split())
