"""The whole cluster, from fresh Ubuntu hosts to the whole platform; run again it changes nothing.

pyinfra inventories/home.py deploys/site.py
"""

from deploys.k3s import k3s_cluster
from deploys.nodes import nodes
from deploys.platform import platform
from deploys.preflight import preflight

preflight()
nodes()
k3s_cluster()
platform()
