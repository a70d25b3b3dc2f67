"""Files that the k3s stand-in's simulated platform reads on each host: delays and real CRDs."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.contract import shared
from tests.lab.hosts import Entry

FOLDER = "/usr/lib/picluster-lab/standin"
DELAYS = Path(__file__).with_name("delays.yaml")
# Components whose operator registers its CRDs at run time; their charts have none.
REGISTERED = ("cilium",)


def files() -> dict[str, Entry]:
    """Return the files of one host by path.

    Without `../shared/contracts` the stand-in registers permissive CRDs of the same names.
    """
    entries = {
        FOLDER: Entry(None, 0o755),
        f"{FOLDER}/crds": Entry(None, 0o755),
        f"{FOLDER}/delays.yaml": Entry(DELAYS.read_bytes()),
    }
    contracts = shared()
    for name in REGISTERED if contracts else ():
        crds = Path(str(contracts)) / name / "crds.yaml"
        entries[f"{FOLDER}/crds/{name}.yaml"] = Entry(crds.read_bytes())
    return entries
