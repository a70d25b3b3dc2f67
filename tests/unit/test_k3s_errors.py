"""K3s' log lines in the words of the person who must act."""

import pytest

from cluster.k3s_errors import explain, message


@pytest.mark.parametrize(
    ("line", "says", "final"),
    [
        (
            'level=info msg="Waiting to retrieve agent configuration; server is not ready: '
            'https://10.0.0.11:6443/v1-k3s/config: 401 Unauthorized: not authorized"',
            "the token was refused",
            True,
        ),
        (
            'level=fatal msg="Error: etcd cluster join failed: duplicate node name found, please '
            'use a unique name for this node"',
            "deploys/reset.py --data forget=node3",
            True,
        ),
        (
            'level=error msg="Failed to validate connection: x509: certificate has expired or is '
            'not yet valid: current time 2026 is before 2027"',
            "its clock is behind",
            True,
        ),
        (
            'level=info msg="Waiting for other members to finish joining etcd cluster: '
            'etcdserver: too many learner members in cluster"',
            "another server is still joining",
            False,
        ),
        (
            'level=fatal msg="/var/lib/rancher/k3s/server/cred/passwd newer than datastore and '
            "could cause a cluster outage. Remove the file(s) from disk and restart to be "
            'recreated from datastore."',
            "a file of this server is newer",
            True,
        ),
        (
            'level=fatal msg="the member has been permanently removed from the cluster"',
            "deploys/reset.py --data node=node3 ",
            True,
        ),
        ('level=fatal msg="something else"', "K3s: something else", False),
        ('level=error msg="some error"', "K3s: some error", False),
    ],
)
def test_a_telling_line_becomes_a_cause(line: str, says: str, final: bool) -> None:
    cause = explain(["level=info msg=hello", line, 'level=info msg="after"'], "node3")
    assert cause is not None
    assert says in cause.text
    assert cause.final is final


def test_quiet_logs_have_no_cause() -> None:
    assert explain(['level=info msg="Starting k3s"'], "node1") is None


def test_the_newest_telling_line_counts() -> None:
    lines = ['level=fatal msg="no space left on device"', 'level=fatal msg="etcd disabled"']
    cause = explain(lines, "node1")
    assert cause is not None and "runs sqlite" in cause.text


def test_tokens_are_masked() -> None:
    token = "K10" + "a" * 64 + "::server:abcdef"
    assert "abcdef" not in message(f'level=fatal msg="bad token {token}"')
