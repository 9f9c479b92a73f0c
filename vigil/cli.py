"""The command line (README.md, Commands). Each command only gathers settings and calls the package that does the work.

Exit status: 0 done · 1 ran and failed · 2 bad input or configuration, every fault on a line · 130 interrupted.
Packages are imported when their command runs, so that an edge loads nothing of the console.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from telemetry.errors import ConfigError, VigilError
from telemetry.settings import Settings, load_settings, stray_variables
from vigil.backup_command import add_backup_commands

INTERRUPTED = 130
EDGE_COMMANDS = frozenset({"edge", "probe"})
"""Need the extra `edge`; `check` and `profile` need none, every other command the extra `line`."""
OURS = frozenset(
    {"telemetry", "edge", "ingest", "analytics", "alerting", "dashboards", "simulators", "profiles", "vigil"}
)


def main() -> None:
    """Entry point of the `vigil` script."""
    try:
        status = vigil.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except (VigilError, OSError) as error:
        click.echo(f"vigil: {error}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


async def until_interrupted(work: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Runs `work` until it is done, or tells it to stop on SIGINT or SIGTERM. Returns the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await work(stop)
    return INTERRUPTED if stop.is_set() else 0


def example(*lines: str) -> str:
    """The epilogue of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


class Commands(click.Group):
    """A command whose packages are not installed says which extra of vigil-line has them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Raises ClickException where a package of another extra is missing."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if not missing or missing in OURS or missing in sys.stdlib_module_names:
                raise
            extra = "edge" if ctx.invoked_subcommand in EDGE_COMMANDS else "line"
            raise click.ClickException(
                f"vigil {ctx.invoked_subcommand} needs {missing}, which is not installed: "
                f"pip install 'vigil-line[{extra}]'"
            ) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("vigil up"))
@click.version_option(package_name="vigil-line", prog_name="vigil")
def vigil() -> None:
    """Telemetry and monitoring for in-service equipment: elevators, forklifts, boilers."""
    for line in stray_variables(os.environ):
        click.echo(f"vigil: {line}", err=True)


PLANT_FLAG = partial(click.option, "--plant", type=click.Path(path_type=Path), help="Plant file (VIGIL_PLANT).")
PLANT = PLANT_FLAG()
STATE = click.option("--state", "state_dir", type=click.Path(path_type=Path), help="State directory (VIGIL_STATE_DIR).")
JSON = click.option("--json", "as_json", is_flag=True, help="Machine output on stdout.")
SPEED = click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Times as fast as the clock.",
)


@vigil.command(epilog=example("vigil up", "vigil up --plant my-plant.yaml --state /var/lib/vigil"))
@PLANT
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Recorded feeds that the demonstration plant replays as further equipment.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the console on 127.0.0.1 (default 8480).")
@STATE
def up(plant: Path | None, data: Path | None, port: int | None, state_dir: Path | None) -> int:
    """The whole line on one machine; with no plant, the demonstration plant."""
    from telemetry.service import configure_logging
    from vigil.up import run_up

    listen = f"127.0.0.1:{port}" if port else None
    settings = load_settings(plant=plant, state_dir=state_dir, listen=listen)
    configure_logging(settings.model_copy(update={"log_format": "console"}))
    return run_up(settings, data)


def service_command(name: str, text: str, *, by: str = "VIGIL_PLANT=plant.yaml") -> None:
    """Adds `vigil NAME`, which runs one service by the settings; `by` is what its example sets. All take the same flags."""

    @vigil.command(name, help=text, epilog=example(f"{by} vigil {name}"))
    @PLANT_FLAG(hidden="PLANT" not in by)  # shown where the service reads it
    @STATE
    def command(plant: Path | None, state_dir: Path | None) -> int:
        from vigil.services import run

        return run(name, load_settings(plant=plant, state_dir=state_dir))


service_command("edge", "Reads the equipment of the plant file, journals, forwards to the log.")
service_command(
    "ingest",
    "Writes the log into the store, exactly once; migrates the schema first.",
    by="VIGIL_STORE=postgresql://vigil@db/vigil",
)
service_command("analyze", "Watches the log with the rules and detectors of the profiles.")
service_command("alert", "Turns findings into alarms, tells people, takes acknowledgements.")
service_command("console", "Serves the web console and the HTTP API.", by="VIGIL_LISTEN=127.0.0.1:8480")


@vigil.command(epilog=example("vigil check my-plant.yaml"))
@click.argument("plants", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--profiles", "profiles_dir", type=click.Path(path_type=Path), help="Own profiles (VIGIL_PROFILES_DIR).")
def check(plants: tuple[Path, ...], profiles_dir: Path | None) -> None:
    """Validates plant files and the profiles that they use."""
    from telemetry.files import check_files

    settings = load_settings(profiles_dir=profiles_dir)
    faults = check_files(plants, profiles_dir=settings.profiles_dir)
    if faults:
        raise ConfigError(faults)
    click.echo(f"{len(plants)} file{'s' if len(plants) > 1 else ''} checked, no fault", err=True)


@vigil.command(epilog=example("vigil plan", "vigil plan boiler-07 --plant my-plant.yaml --state /var/lib/vigil"))
@click.argument("equipment", nargs=-1)
@PLANT
@STATE
@JSON
def plan(equipment: tuple[str, ...], plant: Path | None, state_dir: Path | None, as_json: bool) -> None:
    """What is asked of each Modbus device, and what was learned of it. Connects to nothing."""
    from edge.plans import plans
    from edge.service import plant_of, spool_path

    settings = load_settings(plant=plant, state_dir=state_dir)
    rows = plans(plant_of(settings), settings.edge, spool_path(settings), only=equipment)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], ensure_ascii=False))
        return
    click.echo(f"{'equipment':<20} {'every':>8} {'table':<9} {'address':>7} {'count':>5} {'points':>6} learned")
    for row in rows:
        places = f"{row.table:<9} {row.address:>7} {row.count:>5} {len(row.points):>6}"
        click.echo(f"{row.equipment:<20} {row.every_s:>6g} s {places} {row.learned}".rstrip())


@vigil.command(
    epilog=example(
        "vigil probe modbus+tcp://10.0.0.5:502/3 --profile sola-boiler", "vigil probe boiler-07 --plant p.yaml"
    )
)
@click.argument("address", metavar="ADDRESS|EQUIPMENT")
@click.option("--profile", help="Name of a profile, or path of its file. Default: the equipment's.")
@PLANT
@JSON
def probe(address: str, profile: str | None, plant: Path | None, as_json: bool) -> int:
    """Reads one device once: point, raw words, value, unit, quality; and why, where it does not answer.

    EQUIPMENT is one of the plant file, which then says profile, certificates and logins; of an ADDRESS it is asked for
    the latter with --plant.
    """
    from edge.probe import aim, probe_target

    settings = load_settings(plant=plant)
    file = plant if "://" in address else settings.plant
    try:
        at = aim(address, profile, plant=file, profiles_dir=settings.profiles_dir)
        whys = dict[str, None]()
        rows = asyncio.run(probe_target(at, whys.setdefault))
    except ValueError as error:
        raise click.UsageError(f"ADDRESS: {error}") from error
    for why in whys:
        click.echo(why, err=True)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], ensure_ascii=False))
    else:
        click.echo(f"{'point':<28} {'raw':<22} {'value':>14} {'unit':<8} quality")
        for row in rows:
            raw = "" if row.raw is None else " ".join(map(str, row.raw)) if isinstance(row.raw, list) else str(row.raw)
            value = "" if row.value is None else str(row.value)
            click.echo(f"{row.point:<28} {raw:<22} {value:>14} {row.unit:<8} {row.quality}")
    return 0 if any(row.value is not None for row in rows) else 1


@vigil.group(epilog=example("vigil profile import map.csv --out profiles/vessel.yaml"))
def profile() -> None:
    """Device profiles of your own."""


@profile.command("import", epilog=example("vigil profile import map.csv --class boiler --out profiles/vessel.yaml"))
@click.argument("register_list", metavar="MAP.csv", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="Name of the profile. Default: that of the file it goes to, else of the list.")
@click.option("--class", "equipment_class", default="device", show_default=True, help="Class of the equipment.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to make. Default: stdout.")
@click.option(
    "--addresses",
    type=click.Choice(["auto", "plain", "modicon"]),
    default="auto",
    show_default=True,
    help="Whether 40008 is an address or holding register 8; auto: as the whole list looks.",
)
@click.option("--strict", is_flag=True, help="Draft nothing where a row or a cell of the list cannot be used.")
def profile_import(
    register_list: Path, name: str | None, equipment_class: str, out: Path | None, addresses: Any, strict: bool
) -> None:
    """Drafts a profile from a register list in CSV, as a manual or a spreadsheet has it; says what it cannot use."""
    from telemetry.names import is_name
    from telemetry.register_list import draft_profile
    from telemetry.register_texts import slug

    name = name or (out.stem if out else slug(register_list.stem) or "device")
    for option, word in (("--name", name), ("--class", equipment_class)):
        if not is_name(word):
            raise click.UsageError(f"{option}: expected a name of a-z, 0-9, _ . -, found {word!r}")
    if out and (out.exists() or out.name != f"{name}.yaml"):
        found = f"a file that is there already, {out}" if out.exists() else out.name
        raise click.UsageError(f"--out: expected a new file called {name}.yaml, found {found}")
    draft = draft_profile(
        register_list.read_bytes(), str(register_list), name=name, equipment_class=equipment_class, addresses=addresses
    )
    if not draft.points or (strict and draft.faults):
        raise ConfigError(draft.faults)
    for line in (*draft.faults, *draft.notes):
        click.echo(str(line), err=True)
    if out:
        with out.open("x", encoding="utf-8") as file:
            file.write(draft.text)
    else:
        click.echo(draft.text, nl=False)
    click.echo(f"{draft.points} points drafted", err=True)


@vigil.command(
    epilog=example("vigil replay feed.csv --to mqtt://127.0.0.1:1883/lifts/0012 --profile lift-monitor --speed 10")
)
@click.argument("feed", type=click.Path(path_type=Path))
@click.option(
    "--to", "address", required=True, help="modbus+tcp://HOST:PORT/UNIT to serve, or mqtt://HOST:PORT/PREFIX."
)
@click.option("--profile", required=True, help="Name of a profile, or path of its file.")
@SPEED
def replay(feed: Path, address: str, profile: str, speed: float) -> int:
    """Plays a recorded feed as a device, with its own spacing at N×."""
    from simulators.replay import replay as play
    from telemetry.files import load_profile

    settings = load_settings()
    found = load_profile(profile, profiles_dir=settings.profiles_dir)

    async def work(stop: asyncio.Event) -> None:
        click.echo(str(await play(feed, address, found, speed=speed, stop=stop)), err=True)

    return asyncio.run(until_interrupted(work))


@vigil.command(epilog=example("vigil simulate demo.yaml --export feeds/"))
@click.argument("scenario", type=click.Path(path_type=Path))
@SPEED
@click.option("--export", type=click.Path(path_type=Path, file_okay=False), help="Write feeds and labels, no network.")
def simulate(scenario: Path, speed: float, export: Path | None) -> int:
    """A simulated fleet on Modbus and MQTT, or to files with labels."""
    from simulators.scenario import run

    async def work(stop: asyncio.Event) -> None:
        await run(scenario, speed=speed, export=export, stop=stop)

    return asyncio.run(until_interrupted(work))


@vigil.command(epilog=example("vigil audit --json"))
@STATE
@JSON
def audit(state_dir: Path | None, as_json: bool) -> int:
    """Compares what edges journaled with what the store holds: lost, doubled. Exit 1 where either is not 0."""
    from ingest.audit import audit as run_audit

    report = asyncio.run(run_audit(load_settings(state_dir=state_dir)))
    click.echo(json.dumps(report.as_json(), ensure_ascii=False) if as_json else str(report))
    return 0 if report.clean else 1


add_backup_commands(vigil, example, STATE)


@vigil.group(epilog=example("vigil deadletter list"))
def deadletter() -> None:
    """What was refused, why, and again."""


@deadletter.command("list", epilog=example("vigil deadletter list --json"))
@STATE
@JSON
def deadletter_list(state_dir: Path | None, as_json: bool) -> None:
    """What was refused and has not been replayed."""
    from ingest.deadletters import list_dead_letters

    rows: list[Any] = asyncio.run(list_dead_letters(load_settings(state_dir=state_dir)))
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], ensure_ascii=False))
        return
    for row in rows:
        click.echo(str(row))
    click.echo(f"{len(rows)} dead letters", err=True)


@deadletter.command("replay", epilog=example("vigil deadletter replay 17 18", "vigil deadletter replay --all"))
@click.argument("numbers", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="All that have not been replayed.")
@STATE
def deadletter_replay(numbers: tuple[int, ...], everything: bool, state_dir: Path | None) -> int:
    """Puts refused records in after all, exactly once, where they are acceptable now."""
    from ingest.deadletters import replay_dead_letters

    if bool(numbers) == everything:
        raise click.UsageError("name dead letters by number, or give --all")
    settings: Settings = load_settings(state_dir=state_dir)
    report = asyncio.run(replay_dead_letters(settings, None if everything else list(numbers)))
    click.echo(str(report), err=True)
    return 0 if not report.refused else 1


@vigil.group(epilog=example("vigil boards build --out deploy/grafana/boards"))
def boards() -> None:
    """Grafana boards as JSON, or to a Grafana server."""


LANG = click.option(
    "--lang",
    "langs",
    multiple=True,
    type=click.Choice(["zh", "en"]),
    help="A language; may be repeated. Default: both.",
)


@boards.command("build", epilog=example("vigil boards build --out deploy/grafana/boards --lang zh"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("boards"), show_default=True)
@LANG
def boards_build(out: Path, langs: tuple[Any, ...]) -> None:
    """Writes OUT/LANG/NAME.json, one file a board and language."""
    from dashboards.boards.build import write_boards
    from dashboards.boards.texts import LANGS

    for path in write_boards(out, langs or LANGS):
        click.echo(str(path))


@boards.command(
    "push", epilog=example("VIGIL_GRAFANA_TOKEN_FILE=token vigil boards push --grafana http://127.0.0.1:3000")
)
@click.option("--grafana", help="URL of the server (VIGIL_GRAFANA_URL); the token is VIGIL_GRAFANA_TOKEN or …_FILE.")
@LANG
def boards_push(grafana: str | None, langs: tuple[Any, ...]) -> None:
    """Puts the boards into the folder Vigil of a Grafana server."""
    from dashboards.boards.push import push_boards
    from dashboards.boards.texts import LANGS

    settings = load_settings(grafana_url=grafana)
    if settings.grafana_url is None:
        raise click.UsageError("name the server: --grafana URL, or VIGIL_GRAFANA_URL")
    for uid in push_boards(settings.grafana_url, settings.secret("grafana_token"), langs or LANGS):
        click.echo(uid)
