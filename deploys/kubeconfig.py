"""The operator's kubeconfig: the cluster under its own name, beside other clusters.

    pyinfra inventories/home.py deploys/kubeconfig.py

Written to the file of `--data kubeconfig=PATH`, else `$KUBECONFIG`, else `~/.kube/config`.
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from operations import kubeconfig
from runtime.inventory import CONTROL
from runtime.run import fail


@deploy("Kubeconfig")
def on_this_computer(path: str | None) -> None:
    """Only where pyinfra runs."""
    if problem := kubeconfig.problem(path):
        fail([problem])
    kubeconfig.entry(name="Enter the cluster", path=path)


if CONTROL in host.groups:
    on_this_computer(host.data.get("kubeconfig"))
