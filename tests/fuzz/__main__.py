"""Runs a target for some seconds: guided by coverage where atheris is installed, else by mutation of its seeds.

    python -m tests.fuzz modbus_answer --seconds 600 [--keep DIR]

Prints how many inputs were tried. What breaks an invariant is written to DIR, its trace printed, and the exit status is 1;
`--input FILE` runs one such input again. Inputs found in the past lie in tests/fuzz/corpus/TARGET and are run first.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TARGETS = ("modbus_answer", "mqtt_json", "spool_record")
CORPUS = Path(__file__).parent / "corpus"
LONGEST = 4096


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--input", type=Path)
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        atheris = None  # type: ignore[assignment, unused-ignore]
    if atheris is None:
        module = importlib.import_module(f"tests.fuzz.{arguments.target}")
    else:
        with atheris.instrument_imports(include=["edge", "telemetry"]):
            module = importlib.import_module(f"tests.fuzz.{arguments.target}")
    fuzz_one, seeds = module.fuzz_one, [*module.SEEDS, *known(arguments.target)]
    if arguments.input is not None:
        fuzz_one(arguments.input.read_bytes())
        return 0
    for seed in seeds:
        fuzz_one(seed)
    if atheris is None:
        return mutate(fuzz_one, seeds, arguments.seconds, arguments.keep / f"crash-{arguments.target}")
    folder = tempfile.mkdtemp(prefix=f"vigil-fuzz-{arguments.target}-")
    for number, seed in enumerate(seeds):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={arguments.keep}/"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", "-rss_limit_mb=4096", folder], fuzz_one)
    atheris.Fuzz()  # ends the process: 0, or 77 with the input that broke something
    return 0


def known(target: str) -> list[bytes]:
    """Inputs that once broke something."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def mutate(fuzz_one: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, crash: Path) -> int:
    """Random changes of seeds, without coverage."""
    drawn = random.Random(time.time_ns())
    deadline, tried = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        data = changed(drawn, bytearray(drawn.choice(seeds)))
        try:
            fuzz_one(data)
        except BaseException:
            crash.write_bytes(data)
            print(f"broken by {crash}", file=sys.stderr)
            raise
        tried += 1
    print(f"stat::number_of_executed_units: {tried} (mutation only: atheris is not installed)", file=sys.stderr)
    return 0


def changed(drawn: random.Random, data: bytearray) -> bytes:
    """A few bytes flipped, put in, taken out, or doubled."""
    for _ in range(drawn.randint(1, 8)):
        at = drawn.randint(0, len(data))
        match drawn.randint(0, 3):
            case 0 if at < len(data):
                data[at] = drawn.randint(0, 255)
            case 1:
                data[at:at] = drawn.randbytes(drawn.randint(1, 8))
            case 2:
                del data[at : at + drawn.randint(1, 8)]
            case _:
                data[at:at] = data[at : at + drawn.randint(1, 64)]
    return bytes(data[:LONGEST])


if __name__ == "__main__":
    sys.exit(main())
