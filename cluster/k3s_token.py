"""Other join tokens for a living cluster: who has which, what must not be, in which order. Pure.

K3s keeps a cluster's certificates in the datastore, encrypted with the server token, and the
tokens' passwords among them. One request stores all that anew under another token; it is all that
`k3s token rotate` does (K3s' `pkg/server/handlers/token.go`). A server token that changes in the
configuration alone ends in "encrypted with different token". For the agents' token there is no
request: it is stored with the next rotation of the server token, and a server that starts again
before that ends in "newer than datastore", until the file that is newer is away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from cluster import k3s_config
from cluster.k3s_plan import Survey, servers_of, unfinished_restore
from cluster.model import Cluster

DEPLOY = "deploys/tokens.py"
SERVER, AGENT = "k3s.server_token", "k3s.agent_token"  # their names among the secrets
UNSTORED = f"{k3s_config.DATA}/server/cred/passwd"  # has the agents' token; K3s makes it again
FILES = {k3s_config.SERVER_TOKEN: SERVER, k3s_config.AGENT_TOKEN: AGENT}


class Held(NamedTuple):
    """Tokens of one node by their sha256, empty where it has none.

    in_force: the server token that K3s itself works with, whatever its configuration says.
    """

    server: str = ""
    agent: str = ""
    in_force: str = ""


def differing(held: Held, wanted: Held) -> list[str]:
    """Names of the secrets that are not those on the node; what it lacks does not differ."""
    found = []
    if not {held.server, held.in_force} <= {"", wanted.server}:
        found.append(SERVER)
    if held.agent not in ("", wanted.agent):
        found.append(AGENT)
    return found


def begun(held: Mapping[str, Held], wanted: Held) -> bool:
    """Whether K3s has the new server token; told twice, it would delete what is stored."""
    return any(one.in_force == wanted.server for one in held.values())


def refusals(
    cluster: Cluster,
    survey: Survey,
    held: Mapping[str, Held],
    wanted: Held,
    taking_part: Collection[str],
) -> list[str]:
    """Why the tokens must not be changed now, one line each."""
    servers = servers_of(cluster, survey)
    if all(seen.reached and not seen.datastore for seen in servers):
        return ["no server has K3s' data: deploys/k3s.py makes the cluster with these tokens"]
    if waiting := unfinished_restore(servers):
        return waiting
    found = []
    first = teller(cluster, survey)
    unfinished = first in held and _unfinished(held, first, wanted)
    for seen in servers:
        if not seen.reached:
            found.append(f"{seen.name} was not reached ({seen.reason}): all servers must take part")
        elif seen.name not in taking_part:
            found.append(f"{seen.name} is not part of this run: all servers must take part")
        elif seen.name == first and unstored(held[first], wanted):
            continue  # whether it runs or not
        elif seen.datastore and not (seen.running or unfinished or begun(held, wanted)):
            found.append(f"K3s does not run on {seen.name}: start it first (systemctl start k3s)")
    if unfinished:
        found.append(
            f"{first}: a rotation to another {SERVER} was broken off: put those tokens back into "
            f"the secrets and end it first (they are in {k3s_config.DATA}/server/token and "
            f"{k3s_config.AGENT_TOKEN} there)"
        )
    if any(_agents_alone(held[seen.name], wanted) for seen in servers if seen.name in held):
        found.append(
            f"{AGENT} is another one and {SERVER} is not: K3s stores the agents' token only "
            "together with a new server token; make both anew"
        )
    return found


def _agents_alone(held: Held, wanted: Held) -> bool:
    return held.server == held.in_force == wanted.server and AGENT in differing(held, wanted)


def unstored(own: Held, wanted: Held) -> bool:
    """Whether the server that tells K3s has the new agents' token before it told the server token.

    If it started again then, it does not run until `UNSTORED` is away.
    """
    return own.agent == wanted.agent and own.server == own.in_force != wanted.server


def _unfinished(held: Mapping[str, Held], first: str, wanted: Held) -> bool:
    """Whether the server that tells K3s was given a third token, or one that others have not.

    It restarts for the agents' token before K3s is told, and would do so with a former server
    token; and the token that others still have is no longer the one that K3s stores with.
    """
    own = held[first]
    if own.in_force in ("", wanted.server):
        return False
    return own.in_force != own.server or begun(held, wanted)


def teller(cluster: Cluster, survey: Survey) -> str:
    """The server that tells K3s: the first that is a member; one that is new has nothing to tell.

    The same one in each run: what it was given before is stored by its own request only. Empty
    where no server that was reached is a member.
    """
    return next((seen.name for seen in servers_of(cluster, survey) if seen.datastore), "")


def rotate_script(port: int) -> str:
    """Shell text that gives K3s on a server the new server token, which comes on standard input.

    `k3s token rotate` wants it as an argument, where every user of the host can read it; so its
    request is sent as it sends it, with the credentials that it takes. They and the token go to
    curl on standard input too.
    """
    data = f"{k3s_config.DATA}/server"
    return (
        "set -u; umask 077; IFS= read -r new; "
        f"old=$(sed 's/^K10[^:]*::[^:]*://' {data}/token); "
        r"""esc() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }; """
        r"""body=$(esc "{\"newToken\":\"$(esc "$new")\"}"); """
        r"""printf 'user = "server:%s"\ndata = "%s"\n' "$(esc "$old")" "$body" | """
        "curl --fail-with-body --silent --show-error --max-time 60 --request PUT "
        f"--cacert {data}/tls/server-ca.crt --config - https://127.0.0.1:{port}/v1-k3s/token"
    )
