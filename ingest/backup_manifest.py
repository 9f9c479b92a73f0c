"""What a backup says of itself: MANIFEST.json beside its files, written last.

Invariant: a folder with a manifest whose sums agree is a whole backup; a folder without one is not a backup. The manifest
holds no address, login or password.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from telemetry.errors import StoreError

NAME: Final = "MANIFEST.json"
FORMAT: Final = 1
DUMP: Final = "store"
"""Folder of the database's dump (pg_dump, directory format)."""
LOG: Final = "log"
"""Folder of the embedded log's topics."""
_CHUNK: Final = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileSum(_Part):
    """A file of the backup."""

    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.bytes} bytes with sha256 {self.sha256}"


class TableSum(_Part):
    """A table's rows: how many, and the sum of PostgreSQL's hashes of them, whatever their order."""

    rows: int
    checksum: str


class AppliedMigration(_Part):
    """A row of store_meta.migration. They are kept here and not in the dump: written last, they make a restore whole."""

    version: int
    name: str
    sha256: str
    applied_at: datetime


class Place(_Part):
    """Where a service was in a partition of the log at the moment of the backup."""

    service: str
    topic: str
    partition: int
    next: int


class LogPart(_Part):
    """What the copy of a partition of the embedded log holds: offsets first … end − 1."""

    topic: str
    partition: int
    first: int
    end: int


class Manifest(_Part):
    """Everything that a restore needs to know before it touches anything."""

    format: Literal[1]
    made_at: datetime
    vigil: str
    flavour: Literal["plain", "timescale"]
    timescaledb: str | None
    postgres: int
    """Major version of the server."""
    dumped_by: int
    """Major version of pg_dump."""
    migrations: tuple[AppliedMigration, ...]
    roles: tuple[str, ...]
    """That rights in the dump name."""
    owners: tuple[str, ...]
    """Whose its tables, functions and jobs are."""
    positions: tuple[Place, ...]
    tables: dict[str, TableSum]
    log: tuple[LogPart, ...]
    files: dict[str, FileSum]

    @property
    def schema_version(self) -> int:
        """The last migration that was applied."""
        return max((migration.version for migration in self.migrations), default=0)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def samples(self) -> int:
        """Rows of store.sample."""
        return self.tables["store.sample"].rows

    def write(self, folder: Path) -> None:
        """Writes it into the folder, on the disk when this returns. The last step of a backup."""
        body = self.model_dump(mode="json")
        text = json.dumps({**body, "sha256": _digest(body)}, indent=1, sort_keys=True, ensure_ascii=False)
        path = folder / NAME
        path.write_text(text + "\n", encoding="utf-8")
        sync(path)
        sync(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup. Raises StoreError that says why the folder is none."""
    path = folder / NAME
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: no {NAME}: not a backup, or one that was broken off") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        found = body.get("format") if isinstance(body, dict) else body
        raise StoreError(f"{path}: expected format {FORMAT}, found {found!r}")
    wanted = body.pop("sha256", None)
    if wanted != _digest(body):
        raise StoreError(f"{path}: was changed since it was written: expected sha256 {_digest(body)}, found {wanted}")
    try:
        return Manifest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise StoreError(f"{path}: {error}") from error


def sums(folder: Path) -> dict[str, FileSum]:
    """Every file below the folder but the manifest, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): _sum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises StoreError that names every file that is missing, too many, or not as it was written."""
    found = sums(folder)
    faults = [f"{name}: is missing" for name in sorted(manifest.files.keys() - found.keys())]
    faults += [f"{name}: is not of this backup" for name in sorted(found.keys() - manifest.files.keys())]
    faults += [
        f"{name}: expected {wanted}, found {found[name]}"
        for name, wanted in sorted(manifest.files.items())
        if name in found and found[name] != wanted
    ]
    if faults:
        raise StoreError(f"{folder}: damaged: " + "; ".join(faults))


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sum(path: Path) -> FileSum:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return FileSum(bytes=path.stat().st_size, sha256=digest.hexdigest())


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
