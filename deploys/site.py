"""The whole cluster, from fresh Ubuntu hosts to the whole platform; run again it changes nothing.

pyinfra inventories/home.py deploys/site.py
"""

from deploys.k3s import k3s_cluster
from deploys.nodes import nodes
from deploys.platform import platform
from deploys.preflight import preflight
from deploys.services.api_address import api_address, api_answers
from deploys.services.backup import host_backups
from deploys.services.certbot import certbot
from deploys.services.gateway import gateway
from deploys.services.s3 import s3_service
from deploys.services.san import san
from deploys.services.telemetry import telemetry

preflight()
gateway()  # names, time and the way outside, which the other hosts need
nodes()
certbot()
s3_service()
host_backups()
telemetry()
san()
api_address()  # agents join there
k3s_cluster()
api_answers(runs=True)
platform()
