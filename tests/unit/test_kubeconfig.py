"""The operator's kubeconfig: ours beside others', never instead of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from cluster.kubeconfig import Entry, Refusal, choose, endpoints, merged, problem
from tests.unit.certificates import Pair, kubeconfig, make
from tests.unit.cluster_example import example

NOW = datetime.now(UTC)
CA, CLIENT_CA = make("server-ca"), make("client-ca")
CLIENT = make("system:admin", CLIENT_CA)
OURS = endpoints(example())
URL = "https://10.0.0.11:6443"


def entry(client: Pair = CLIENT, ca: Pair = CA, name: str = "pi", server: str = URL) -> Entry:
    return Entry(name, server, ca.pem.decode(), client.pem, client.key_pem)


def named(text: str, section: str) -> list[str]:
    return [item["name"] for item in yaml.safe_load(text)[section]]


FOREIGN = """\
# mine
apiVersion: v1
kind: Config
preferences: {}
current-context: work
contexts:
  - name: work   # the office
    context: {user: boss, cluster: work}
users:
  - name: boss
    user:
      token: "abc"
clusters:
  - name: work
    cluster:
      server: 'https://work.example.com'
"""


def test_a_new_file_has_one_cluster_named_after_ours() -> None:
    text = merged(None, entry(), OURS, NOW)
    config = yaml.safe_load(text)
    assert config["kind"] == "Config"
    assert [named(text, section) for section in ("clusters", "users", "contexts")] == [["pi"]] * 3
    assert config["current-context"] == "pi"
    assert config["clusters"][0]["cluster"]["server"] == URL
    assert config["contexts"][0]["context"] == {"cluster": "pi", "user": "pi"}


def test_a_second_time_nothing_changes() -> None:
    once = merged(FOREIGN, entry(), OURS, NOW)
    assert merged(once, entry(), OURS, NOW) == once


def test_others_stay_with_their_order_comments_quotes_and_indentation() -> None:
    text = merged(FOREIGN, entry(), OURS, NOW)
    for line in FOREIGN.splitlines():
        assert line in text.splitlines()
    assert named(text, "clusters") == ["work", "pi"]
    assert yaml.safe_load(text)["current-context"] == "work"


def test_an_empty_file_and_null_sections_count_as_nothing() -> None:
    assert merged("", entry(), OURS, NOW) == merged(None, entry(), OURS, NOW)
    text = merged("apiVersion: v1\nkind: Config\nclusters: null\nusers:\n", entry(), OURS, NOW)
    assert named(text, "clusters") == ["pi"]


def test_a_rebuilt_cluster_at_our_address_replaces_the_old_one() -> None:
    old = merged(FOREIGN, entry(), OURS, NOW)
    new = entry(client=make("system:admin", make("client-ca")), ca=make("server-ca"))
    text = merged(old, new, OURS, NOW)
    assert text != old
    assert named(text, "clusters") == ["work", "pi"]
    assert merged(text, new, OURS, NOW) == text


def test_a_virtual_address_that_was_added_is_taken_over() -> None:
    old = merged(None, entry(server="https://10.0.0.99:6443"), OURS, NOW)
    text = merged(old, entry(), OURS, NOW)
    assert yaml.safe_load(text)["clusters"][0]["cluster"]["server"] == URL


def test_the_admin_certificate_of_another_server_is_no_change() -> None:
    lasting = CLIENT
    text = merged(None, entry(lasting), OURS, NOW - timedelta(days=200))
    other = make("system:admin", CLIENT_CA)
    early = NOW - timedelta(days=200)  # the certificate then lasts more than 120 days
    assert merged(text, entry(other), OURS, early) == text


def test_a_certificate_near_its_end_is_replaced_by_one_that_lasts_longer() -> None:
    ending = make("system:admin", CLIENT_CA, starts_in=-timedelta(hours=1))
    text = merged(None, entry(ending), OURS, NOW)
    assert merged(text, entry(CLIENT), OURS, NOW) != text
    back = merged(None, entry(CLIENT), OURS, NOW)
    assert merged(back, entry(ending), OURS, NOW) == back


def test_a_certificate_of_an_earlier_authority_is_replaced() -> None:
    old = make("system:admin", make("client-ca@1"), starts_in=timedelta(hours=1))
    text = merged(None, entry(old), OURS, NOW)
    assert merged(text, entry(CLIENT), OURS, NOW) != text


def test_a_key_that_does_not_fit_its_certificate_is_replaced() -> None:
    broken = Entry("pi", URL, CA.pem.decode(), CLIENT.pem, make("x").key_pem)
    text = merged(None, broken, OURS, NOW)
    repaired = merged(text, entry(), OURS, NOW)
    assert merged(repaired, entry(), OURS, NOW) == repaired != text


def test_a_namespace_and_a_proxy_of_the_user_stay() -> None:
    config = yaml.safe_load(merged(None, entry(), OURS, NOW))
    config["contexts"][0]["context"]["namespace"] = "longhorn-system"
    config["clusters"][0]["cluster"]["proxy-url"] = "socks5://localhost:1080"
    config["clusters"][0]["cluster"]["server"] = "https://10.0.0.12:6443"
    changed = yaml.safe_load(merged(yaml.safe_dump(config), entry(), OURS, NOW))
    assert changed["contexts"][0]["context"]["namespace"] == "longhorn-system"
    assert changed["clusters"][0]["cluster"]["proxy-url"] == "socks5://localhost:1080"
    assert changed["clusters"][0]["cluster"]["server"] == URL


def test_an_entry_of_our_name_for_another_cluster_is_refused() -> None:
    text = FOREIGN.replace("work", "pi")
    with pytest.raises(Refusal, match=r"its entry pi is another cluster \(https://pi\.example"):
        merged(text, entry(), OURS, NOW)
    assert "another cluster" in problem(text, "pi", OURS)
    foreign_ca = kubeconfig(make("ca"), CLIENT, "https://192.168.9.9:6443")
    with pytest.raises(Refusal, match="another cluster"):
        merged(foreign_ca.replace("default", "pi"), entry(), OURS, NOW)


def test_a_user_of_our_name_without_a_cluster_is_refused() -> None:
    text = FOREIGN.replace("boss", "pi")
    assert problem(text, "pi", OURS).startswith("it has a user named pi but no such cluster")
    with pytest.raises(Refusal, match="user named pi"):
        merged(text, entry(), OURS, NOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("clusters: [\n  - {a: secret-text", "it is not YAML"),
        ("- a\n- b\n", "it is not a kubeconfig (kind: Config)"),
        ("kind: Secret\n", "it is not a kubeconfig (kind: Config)"),
        ("clusters: secret-text\n", "its clusters are not a list of named entries"),
        ("clusters:\n- name: pi\n- name: pi\n", "it has 2 clusters named pi"),
        ("a: 1\na: 2\n", "it is not YAML"),
    ],
)
def test_a_broken_file_is_refused_and_not_quoted(text: str, why: str) -> None:
    with pytest.raises(Refusal) as caught:
        merged(text, entry(), OURS, NOW)
    assert str(caught.value).startswith(why)
    assert "secret-text" not in str(caught.value)
    assert problem(text, "pi", OURS).startswith(why)


def test_secrets_are_not_in_the_representation() -> None:
    assert "PRIVATE" not in repr(entry())


def test_of_several_files_the_one_with_our_context_is_changed() -> None:
    mine = merged(None, entry(), OURS, NOW)
    assert choose([("a", FOREIGN), ("b", mine)], "pi") == "b"
    assert choose([("a", None), ("b", FOREIGN), ("c", None)], "pi") == "b"
    assert choose([("a", None), ("b", None)], "pi") == "b"
    assert choose([("a", "not: [yaml"), ("b", None)], "pi") == "a"
