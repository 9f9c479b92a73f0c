"""Columns of numpy as PostgreSQL arrays in the binary format: a parameter of many values without a Python object for each.

Source of the layout: PostgreSQL 17, src/backend/utils/adt/arrayfuncs.c, array_recv: dimensions, a flag for NULLs and the
type of an element (int32 each); for each dimension its length and lower bound; each element as its length and its bytes,
big-endian, −1 and no bytes for a NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

EPOCH_2000_US: Final = 946_684_800_000_000
"""PostgreSQL counts time from 2000-01-01."""


@dataclass(frozen=True, slots=True, eq=False)
class PgArray:
    """A one-dimensional array parameter. values (n,), which ELEMENT holds without loss (else an OverflowError when it
    is sent); absent (n,) bool, True for NULL, or None: none is."""

    values: npt.NDArray[Any]
    absent: npt.NDArray[np.bool_] | None = None

    ELEMENT: ClassVar[str]
    """The type of an element in the database."""
    WIRE: ClassVar[str]
    """Its bytes, as a dtype."""

    def wire(self) -> npt.NDArray[Any]:
        """The values as they travel."""
        return self.values


class Int2s(PgArray):
    """smallint[]"""

    __slots__ = ()
    ELEMENT, WIRE = "int2", ">i2"


class Int4s(PgArray):
    """integer[]"""

    __slots__ = ()
    ELEMENT, WIRE = "int4", ">i4"


class Int8s(PgArray):
    """bigint[]"""

    __slots__ = ()
    ELEMENT, WIRE = "int8", ">i8"


class Float8s(PgArray):
    """double precision[]"""

    __slots__ = ()
    ELEMENT, WIRE = "float8", ">f8"


class Times(PgArray):
    """timestamptz[], of int64 µs since 1970"""

    __slots__ = ()
    ELEMENT, WIRE = "timestamptz", ">i8"

    def wire(self) -> npt.NDArray[Any]:
        """µs since 2000. Raises OverflowError within 30 years of the first time that int64 holds."""
        if len(self.values) and int(self.values.min()) - EPOCH_2000_US < np.iinfo(np.int64).min:
            raise OverflowError(f"a time of {self.values.min()} µs since 1970 cannot be told since 2000")
        return self.values - EPOCH_2000_US


class _Dumper(Dumper):
    format = Format.BINARY
    element_oid: ClassVar[int]

    def dump(self, obj: PgArray) -> Buffer | None:
        values = obj.wire()
        if not len(values):
            return np.array([0, 0, self.element_oid], ">i4").tobytes()
        table = np.empty(len(values), [("length", ">i4"), ("value", obj.WIRE)])
        table["length"] = table.dtype["value"].itemsize
        table["value"] = values
        if not np.can_cast(values.dtype, table.dtype["value"]) and not np.array_equal(table["value"], values):
            raise OverflowError(f"expected values of {obj.ELEMENT}, found {values.min()} to {values.max()}")
        absent = obj.absent
        head = np.array([1, absent is not None, self.element_oid, len(values), 1], ">i4").tobytes()
        if absent is None or not absent.any():
            return head + table.tobytes()
        table["length"][absent] = -1
        kept = np.ones((len(table), table.dtype.itemsize), np.bool_)
        kept[absent, 4:] = False
        return head + table.view(np.uint8).reshape(kept.shape)[kept].tobytes()


def register_arrays(connection: psycopg.AsyncConnection[Any]) -> None:
    """Lets a connection take these as parameters."""
    for kind in (Int2s, Int4s, Int8s, Float8s, Times):
        info = psycopg.adapters.types[kind.ELEMENT]
        members = {"oid": info.array_oid, "element_oid": info.oid}
        connection.adapters.register_dumper(kind, type(f"{kind.__name__}Dumper", (_Dumper,), members))
