"""The commands `vigil backup` and `vigil restore`; their work is in vigil/backup.py, imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from telemetry.settings import load_settings

TOOLS = click.option(
    "--tools",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of pg_dump and pg_restore. Default: those of this machine that fit the server.",
)


def add_backup_commands(
    group: click.Group, example: Callable[..., str], state: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Adds both to the command line; `state` is its option --state, `example` makes an epilogue."""

    @group.command(epilog=example("vigil backup --out /backup/2026-11-23"))
    @click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
    @TOOLS
    @state
    def backup(out: Path, tools: Path | None, state_dir: Path | None) -> None:
        """One moment of the store (and of the embedded log) into a folder, while everything runs."""
        from vigil.backup import report, run_backup

        manifest = run_backup(load_settings(state_dir=state_dir), out, tools)
        for line in (str(out), *report(manifest)):
            click.echo(line, err=True)

    @group.command(epilog=example("vigil restore /backup/2026-11-23", "vigil restore --check /backup/2026-11-23"))
    @click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
    @click.option("--check", is_flag=True, help="Only look whether the backup is whole; touch no store.")
    @TOOLS
    @state
    def restore(folder: Path, check: bool, tools: Path | None, state_dir: Path | None) -> None:
        """A backup into an empty store; then the services go on from its places on the log."""
        from ingest.backup_restore import check_backup
        from vigil.backup import report, run_restore

        if check:
            lines = ["whole", *report(check_backup(folder))]
        else:
            manifest, log_too = run_restore(load_settings(state_dir=state_dir), folder, tools)
            lines = ["restored", *report(manifest)]
            if manifest.log:
                lines.append(
                    "the embedded log was restored, too" if log_too else "the log is as it was: its copy was not used"
                )
        for line in lines:
            click.echo(line, err=True)
