"""The whole cluster, from fresh Ubuntu hosts to registered K3s nodes; run again it changes nothing.

pyinfra inventories/home.py deploys/site.py
"""

from pyinfra import local

for part in ("preflight", "nodes", "k3s"):
    local.include(f"deploys/{part}.py")
