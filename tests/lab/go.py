"""Programs built from their Go modules, for machines that reach no releases."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.program import output

STANDIN = Path(__file__).parent / "standin"
BUILD_LIMIT_S = 1800
# The compiler takes a tenth less time without what debuggers ask for. All programs have the same
# flags: what several of them link is compiled once.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -gcflags=all=-dwarf=false"}


def need(why: str) -> None:
    """Raise LabError with these words where there is no Go."""
    if not shutil.which("go"):
        raise LabError(why)


def build(
    what: str,
    command: str,
    version: str,
    target: Path,
    *,
    flags: str = "",
    libraries: Path | None = None,
) -> Path:
    """Build a command of a module into the file `target`; where Go keeps the module's source.

    flags: of the linker. libraries: a folder with a go.mod, by whose versions it is built where
    they are newer. Raises LabError.
    """
    need(f"{what}: Go to build it is not installed")
    print(f"building {what} (minutes at first)", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if libraries is None:
            (place / "go.mod").write_text("module lab\n")
        else:
            for name in ("go.mod", "go.sum"):
                shutil.copy(libraries / name, place)

        def go(*words: str | Path) -> str:
            return output(what, ["go", *words], BUILD_LIMIT_S, folder=place, **ENVIRONMENT)

        go("get", f"{command}@v{version}")
        go("build", "-mod=mod", "-ldflags", flags, "-o", target, command)
        return Path(go("list", "-f", "{{.Module.Dir}}", command).strip())
