"""cluster/objects.py: what differs between a wanted and a live object, and whose field it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.objects import (
    Difference,
    Item,
    changes_of,
    differences,
    fingerprint,
    last_writers,
    lines,
    lost,
    managed_by,
    operated,
    other_managers,
    path_text,
    prepared,
    ref,
)
from cluster.readiness import Ref

OURS = "picluster"


def deployment(**spec: Any) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": "app:1",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "namespace": "default", "labels": {"a": "b"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [container]}}} | spec,
    }


def managed(live: dict[str, Any], *entries: tuple[str, dict[str, Any]], **more: str) -> Any:
    """The object with what managers own; ours applies, the others update, each a minute later."""
    fields = [
        {
            "manager": manager,
            "operation": "Apply" if manager == OURS else "Update",
            "fieldsV1": owned,
            "time": f"2026-01-01T00:0{number}:00Z",
            **more,
        }
        for number, (manager, owned) in enumerate(entries)
    ]
    return live | {"metadata": live["metadata"] | {"managedFields": fields}}


def paths(found: tuple[Difference, ...]) -> list[str]:
    return [one.where for one in found]


# --- property: what others add never counts

NAMES = st.sampled_from(["a", "b", "c", "name", "f", "k8s.io/x", "replicas"])
LEAVES = st.one_of(st.integers(), st.booleans(), st.text(max_size=5), st.none())
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=4),
        st.lists(LEAVES.filter(lambda leaf: leaf is not None), max_size=3),
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5).map(
    lambda parts: {
        "apiVersion": "example.org/v1",
        "kind": "Example",
        "metadata": {"name": "x", "labels": parts.get("labels", {})},
        "spec": parts,
    }
)


def merged(value: Any, extra: Any) -> Any:
    """`value` with everything of `extra` that it does not say itself."""
    if isinstance(value, dict) and isinstance(extra, dict):
        keys = [*value, *(key for key in extra if key not in value)]
        return {
            key: merged(value[key], extra.get(key)) if key in value else extra[key] for key in keys
        }
    return extra if value is None else value


@given(OBJECTS, OBJECTS)
def test_whatever_others_add_is_no_difference(
    wanted: dict[str, Any], extra: dict[str, Any]
) -> None:
    live = merged(wanted, extra) | {"status": {"phase": "x"}}
    assert differences(wanted, live) == ()


@given(OBJECTS)
def test_an_object_is_itself_in_any_order(item: dict[str, Any]) -> None:
    turned = dict(reversed(list(item.items())))
    assert differences(item, turned) == ()
    assert changes_of(item, turned) == ()
    assert fingerprint(item) == fingerprint(turned)


@given(OBJECTS, st.text(min_size=1, max_size=5))
def test_a_changed_field_is_found(item: dict[str, Any], text: str) -> None:
    wanted = deepcopy(item)
    wanted["spec"]["changed"] = {"here": text + "!"}
    live = deepcopy(item)
    live["spec"]["changed"] = {"here": text}
    assert paths(differences(wanted, live)) == ["spec.changed.here"]


# --- what means the same


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}),
        ({"limits": {"cpu": 0.5}}, {"limits": {"cpu": "500m"}}),
        ({"limits": {"cpu": 1}}, {"limits": {"cpu": "1"}}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1073741824"}}),
        ({"sizeLimit": "1024Mi"}, {"sizeLimit": "1Gi"}),
        ({"duration": "2160h"}, {"duration": "2160h0m0s"}),
        ({"interval": "90s"}, {"interval": "1m30s"}),
        ({"port": 80}, {"port": "80"}),
        ({"list": [], "map": {}, "none": None}, {}),
        ({"deep": {"empty": {}, "none": None}}, {}),
    ],
)
def test_the_api_s_own_spelling_is_the_same(wanted: Any, live: Any) -> None:
    assert differences(deployment(x=wanted), deployment(x=live)) == ()


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"version": "1.10"}, {"version": "1.1"}),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}),
        ({"on": True}, {"on": 1}),
        ({"on": True}, {"on": "True"}),
        ({"args": ["60s"]}, {"args": ["1m"]}),
        ({"labels": {"cpu": "1"}}, {"labels": {"cpu": "1000m"}}),
        ({"env": [{"name": "A", "value": "60s"}]}, {"env": [{"name": "A", "value": "1m"}]}),
        ({"list": ["a", "b"]}, {"list": ["b", "a"]}),
        ({"list": ["a"]}, {"list": ["a", "b"]}),
        ({"replicas": 1}, {}),
    ],
)
def test_what_differs_is_found(wanted: Any, live: Any) -> None:
    assert len(differences(deployment(x=wanted), deployment(x=live))) == 1


def test_data_of_a_config_map_is_compared_letter_by_letter() -> None:
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert paths(
        differences(head | {"data": {"memory": "1Gi"}}, head | {"data": {"memory": "1024Mi"}})
    )


def test_items_are_found_by_their_key_and_those_of_others_stay() -> None:
    live = deployment()
    containers = live["spec"]["template"]["spec"]["containers"]
    containers.insert(0, {"name": "injected", "image": "mesh:1"})
    containers[1]["ports"][0]["protocol"] = "TCP"
    assert differences(deployment(), live) == ()
    containers[1]["image"] = "app:2"
    (found,) = differences(deployment(), live)
    assert found.where == "spec.template.spec.containers[app].image"
    assert (found.wanted, found.live) == ("app:1", "app:2")


def test_the_same_port_over_two_protocols_is_two_items() -> None:
    def service(*ports: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "dns"},
            "spec": {"ports": ports},
        }

    tcp, udp = ({"port": 53, "protocol": p, "name": p.lower()} for p in ("TCP", "UDP"))
    live = service(udp | {"targetPort": 53}, tcp | {"targetPort": 53})
    live["spec"]["ports"] = list(live["spec"]["ports"])
    assert differences(service(tcp, udp), live) == ()


def test_a_finalizer_of_somebody_else_is_no_difference() -> None:
    live = deployment()
    live["metadata"]["finalizers"] = ["theirs", "ours"]
    wanted = deployment()
    wanted["metadata"]["finalizers"] = ["ours"]
    assert differences(wanted, live) == ()


def test_texts_of_a_secret_are_compared_with_its_data() -> None:
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    live = head | {"data": {"key": "dGV4dA=="}}
    assert differences(head | {"stringData": {"key": "text"}}, live) == ()
    (found,) = differences(head | {"stringData": {"key": "other"}}, live)
    (line,) = lines([found], ref(live))
    assert "other" not in line and "dGV4dA" not in line and "b3RoZXI" not in line
    assert line == "Secret s: data.key: *MASKED* is changed"


def test_what_looks_like_a_secret_is_masked_in_any_kind() -> None:
    one = Difference(("spec", "adminPassword"), "new", "old")
    deep = Difference(("spec", "auth"), {"password": "hunter2", "user": "u"}, None)
    text = "\n".join(lines([one, deep], Ref("v1", "X", "x")))
    assert "new" not in text and "old" not in text and "hunter2" not in text


# --- what managers own


def test_an_atomic_list_of_maps_is_exact_as_its_managers_say() -> None:
    wanted, live = (
        deployment(rules=[{"name": "a"}]),
        deployment(rules=[{"name": "a"}, {"name": "b"}]),
    )
    assert differences(wanted, live) == ()
    atomic = managed(live, (OURS, {"f:spec": {"f:rules": {}, "f:replicas": {}}}))
    assert paths(differences(wanted, atomic)) == ["spec.rules"]


def test_false_that_the_api_leaves_out_is_there_while_we_own_it() -> None:
    wanted = deployment(paused=False)
    owned = {"f:spec": {"f:paused": {}, "f:replicas": {}}}
    assert differences(wanted, deployment()) == ()
    assert differences(wanted, managed(deployment(), (OURS, owned)), OURS) == ()
    gone = managed(deployment(), (OURS, {"f:spec": {"f:replicas": {}}}))
    assert paths(differences(wanted, gone, OURS)) == ["spec.paused"]


def test_what_we_applied_and_no_longer_want_is_a_difference() -> None:
    live = deployment()
    live["metadata"]["labels"]["old"] = "x"
    live["metadata"]["labels"]["theirs"] = "y"
    owned = {"f:metadata": {"f:labels": {"f:a": {}, "f:old": {}}}}
    live = managed(live, (OURS, owned), ("kubectl", {"f:metadata": {"f:labels": {"f:theirs": {}}}}))
    assert differences(deployment(), live) == ()
    (found,) = differences(deployment(), live, OURS)
    assert (found.where, found.wanted, found.live) == ("metadata.labels.old", None, "x")


def test_the_manager_of_a_field_is_named_also_within_lists_and_wholes() -> None:
    image = {
        "f:spec": {
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"app"}': {"f:image": {}}}}}
        }
    }
    live = managed(
        deployment(),
        ("kubectl-edit", image),
        ("operator", {"f:spec": {"f:selector": {}}}),
        (OURS, image),
    )
    path = ("spec", "template", "spec", "containers", Item((("name", "app"),)), "image")
    assert other_managers(live, path, OURS) == ("kubectl-edit",)
    assert other_managers(live, ("spec", "selector", "matchLabels", "app"), OURS) == ("operator",)
    assert other_managers(live, ("spec", "replicas"), OURS) == ()


def test_who_wrote_after_us_is_known_and_status_does_not_count() -> None:
    live = managed(deployment(), ("before", {}), (OURS, {}), ("kubectl-edit", {}))
    assert last_writers(live, OURS) == ("kubectl-edit",)
    live["metadata"]["managedFields"][2]["subresource"] = "status"
    assert last_writers(live, OURS) == ()


def test_a_field_that_was_taken_from_us_is_lost_also_without_the_object() -> None:
    owned = {
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {}}}},
    }
    head = {key: deployment()[key] for key in ("apiVersion", "kind", "metadata")}
    assert lost(deployment(), managed(head, (OURS, owned)), OURS) == ()
    del owned["f:spec"]["f:replicas"]
    found = lost(deployment(), managed(head, (OURS, owned)), OURS)
    assert [path_text(path) for path in found] == ["spec.replicas"]


def test_an_object_that_we_never_applied_is_not_ours() -> None:
    assert not managed_by(managed(deployment(), ("helm", {})), OURS)
    assert lost(deployment(), managed(deployment(), ("helm", {})), OURS) == ((),)
    assert managed_by(managed(deployment(), (OURS, {})), OURS)


def test_a_ca_that_a_controller_put_in_place_of_a_placeholder_is_no_edit() -> None:
    path = ("webhooks", Item((("name", "x"),)), "clientConfig", "caBundle")
    hook = {
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "h"},
        "webhooks": [{"name": "x", "clientConfig": {"caBundle": "cmVhbA=="}}],
    }
    fields = {"f:webhooks": {'k:{"name":"x"}': {"f:clientConfig": {"f:caBundle": {}}}}}
    injected = managed(hook, ("helm", {}), ("cainjector", fields))
    one = Difference(path, "Cg==", "cmVhbA==")
    assert operated(one, injected, "helm")
    assert not operated(one, managed(hook, ("helm", fields)), "helm")


def test_only_the_product_s_own_controller_may_change_what_it_has_to() -> None:
    path = ("webhooks", Item((("name", "x"),)), "failurePolicy")
    hook = {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "h"}}
    fields = {"f:webhooks": {'k:{"name":"x"}': {"f:failurePolicy": {}}}}
    one = Difference(path, "Ignore", "Fail")
    assert operated(one, managed(hook, ("pilot-discovery", fields)), "helm")
    assert not operated(one, managed(hook, ("kubectl-edit", fields)), "helm")


def test_placeholders_of_a_ca_are_not_sent() -> None:
    hook = {"clientConfig": {"caBundle": "Cg==", "service": {"name": "x"}}}
    sent = prepared({"kind": "MutatingWebhookConfiguration", "webhooks": [hook]})
    assert sent["webhooks"] == [{"clientConfig": {"service": {"name": "x"}}}]
    real = {"kind": "MutatingWebhookConfiguration", "webhooks": [{"caBundle": "cmVhbA=="}]}
    assert prepared(real) == real


def test_the_result_of_a_dry_run_is_compared_in_both_directions() -> None:
    old, new = deployment(paused=True), deployment(strategy={"type": "Recreate"})
    new["metadata"] |= {"generation": 7, "managedFields": [], "resourceVersion": "9"}
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
    assert set(paths(changes_of(old, new))) == {
        "spec.paused", "spec.strategy", "spec.template.spec.containers[app].image",
    }  # fmt: skip


def test_what_is_sent_has_no_nulls() -> None:
    assert prepared({"kind": "X", "a": None, "b": [{"c": None, "d": 1}]}) == {
        "kind": "X",
        "b": [{"d": 1}],
    }


def test_paths_read_as_people_write_them() -> None:
    path = (
        "metadata",
        "annotations",
        "a.b/c",
        "list",
        2,
        Item((("port", 80), ("protocol", "TCP"))),
    )
    assert path_text(path) == 'metadata.annotations["a.b/c"].list[2][80, TCP]'
