"""The join tokens of the secrets put in force on a living cluster, one node after the other.

    pyinfra inventories/home.py deploys/tokens.py

First give the secrets another `k3s.server_token`; a new `k3s.agent_token` goes only with it. K3s
restarts on every server, and on agents where their token changes; pods go on running.
"""

from pyinfra import host, inventory
from pyinfra.api.deploy import deploy

from cluster import k3s_token
from cluster.model import Cluster
from facts.k3s import held, survey, taking_part
from operations import flow
from operations import k3s_token as actions
from runtime.inventory import node_name
from runtime.run import cluster, fail, started_directly
from runtime.secrets import SecretsUnavailable, need


def refuse_what_must_not_run(model: Cluster) -> None:
    """Stop before anything is changed when not every server can take part."""
    try:
        wanted = actions.wanted()
    except SecretsUnavailable as error:
        fail([str(error)])
    problems = k3s_token.refusals(
        model,
        survey(model, inventory),
        held(model, inventory),
        wanted,
        taking_part(inventory),
    )
    if problems:
        fail(problems)


@deploy("Tokens")
def join_tokens() -> None:
    """One server tells K3s; then all start with the new tokens, servers before agents."""
    model, me = cluster(), node_name(host)
    if me == k3s_token.teller(model, survey(model, inventory)):
        actions.rotate(name="Rotate the server token")
    flow.barrier(name="K3s has the server token")
    servers = [server.name for server in model.servers]
    if me in servers:
        actions.revive(name="Start the servers that are down with the tokens")
    flow.barrier(name="No server is down for its tokens")
    for name in host.loop([*servers, *(agent.name for agent in model.agents)]):
        if me == name:
            actions.adopt(name=f"{name}: start with the tokens")
        flow.barrier(name=f"{name} is done")


def tokens() -> None:
    """The rotation, called for every host of the run."""
    need()
    refuse_what_must_not_run(cluster())
    join_tokens()


if started_directly(__name__):
    tokens()
