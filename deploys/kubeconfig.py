"""The operator's kubeconfig: the cluster under its own name, beside other clusters.

    pyinfra inventories/home.py deploys/kubeconfig.py

Written to the file of `--data kubeconfig=PATH`, else `$KUBECONFIG`, else `~/.kube/config`.
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from operations import kubeconfig
from runtime.inventory import CONTROL
from runtime.run import fail, started_directly


@deploy("Kubeconfig")
def kubeconfig_here() -> None:
    """Only where pyinfra runs; called for every host of the run."""
    if CONTROL not in host.groups:
        return
    path = host.data.get("kubeconfig")
    if problem := kubeconfig.problem(path):
        fail([problem])
    kubeconfig.entry(name="Enter the cluster", path=path)


if started_directly(__name__):
    kubeconfig_here()
