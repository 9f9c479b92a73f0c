"""What all models of files share: they are strict about keys, and do not change."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from telemetry.names import NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]


class Model(BaseModel):
    """Base: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Text(Model):
    """A text in both languages of the boards and the console."""

    zh: str = Field(min_length=1, description="Chinese.")
    en: str = Field(min_length=1, description="English.")
