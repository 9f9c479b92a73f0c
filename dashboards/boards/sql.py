"""A query of Grafana's PostgreSQL data source, as the SDK's own kind of data query.

SQL reads the public views only and uses of Grafana's macros `$__timeFilter`, `$__timeFrom()`, `$__timeTo()` and
`$__interval_ms`: `$__timeGroup` becomes `time_bucket` where the data source says TimescaleDB and would tie a board to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import DataqueryConfig, Runtime
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATASOURCE_TYPE: Final = "grafana-postgresql-datasource"
DATASOURCE_UID: Final = "vigil"
DATASOURCE: Final = DataSourceRef(type_val=DATASOURCE_TYPE, uid=DATASOURCE_UID)

Format = Literal["table", "time_series"]


@dataclass(slots=True)
class SqlQuery(variants.Dataquery):
    """One SQL query; `format` says whether Grafana reads rows or series (columns time, metric, value)."""

    raw_sql: str
    format: Format = "table"
    ref_id: str = "A"
    datasource: DataSourceRef = field(default_factory=lambda: DATASOURCE)

    def to_json(self) -> dict[str, object]:
        """As Grafana's data source keeps it: written by hand, not by its query builder."""
        return {
            "datasource": self.datasource,
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": self.raw_sql,
            "refId": self.ref_id,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The query of a board's JSON. Raises KeyError for one that is not of this kind."""
        return cls(data["rawSql"], data["format"], data["refId"], DataSourceRef.from_json(data["datasource"]))


class Sql(Builder[SqlQuery]):
    """The builder that panels take."""

    def __init__(self, raw_sql: str, *, format: Format = "table", ref_id: str = "A") -> None:
        self._query = SqlQuery(" ".join(raw_sql.split()), format, ref_id)

    def build(self) -> SqlQuery:
        """The query."""
        return self._query


def register() -> None:
    """Teaches the SDK's runtime to read these queries back from JSON."""
    Runtime().register_dataquery_variant(DataqueryConfig(DATASOURCE_TYPE, SqlQuery.from_json))
