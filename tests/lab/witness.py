"""What the API itself tells while a deploy runs: when which server was away, how nodes changed."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tests.lab.lab import Lab
from tests.lab.living import Object

EVERY_S = 0.1
CONFIG_HASH = "k3s.io/node-config-hash"  # changes when K3s starts with other settings


@dataclass(frozen=True)
class Seen:
    """A Node object at a moment."""

    name: str
    node: Object

    @property
    def config(self) -> str:
        """What tells one configuration of its K3s from another."""
        return str(self.node["metadata"].get("annotations", {}).get(CONFIG_HASH, ""))


class Witness:
    """Watches a cluster while the block runs, through the API of every server.

    outages: for each server the moments between which its /readyz did not answer "ok".
    events: the Node objects at the beginning, and then as the watch told them, in order.
    """

    def __init__(self, lab: Lab, servers: Iterable[str], folder: Path) -> None:
        config = yaml.safe_load(lab.read("node1", "/etc/rancher/k3s/k3s.yaml"))
        clients = {name: _client(config, lab.record.host(name).ip, folder) for name in servers}
        self.outages: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        self.events: list[Seen] = []
        self._over = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._ask, args=item) for item in clients.items()),
            threading.Thread(target=self._watch, args=(list(clients.values()),)),
        ]

    def __enter__(self) -> Witness:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def reconfigured(self) -> list[str]:
        """The nodes whose K3s came up with another configuration, in the order of the watch."""
        known: dict[str, str] = {}
        found = []
        for seen in self.events:
            if known.setdefault(seen.name, seen.config) != seen.config:
                known[seen.name] = seen.config
                found.append(seen.name)
        return found

    def _ask(self, server: str, client: ApiClient) -> None:
        since: float | None = None
        while not self._over.wait(EVERY_S):
            ready = _ready(client)
            if ready is False and since is None:
                since = time.monotonic()
            elif ready and since is not None:
                self.outages[server].append((since, time.monotonic()))
                since = None
        if since is not None:
            self.outages[server].append((since, time.monotonic()))

    def _watch(self, clients: list[ApiClient]) -> None:
        version = ""
        while not self._over.is_set():
            client = clients[0]
            clients.append(clients.pop(0))  # the next time another server
            try:
                api = CoreV1Api(client)
                if not version:
                    listed = client.sanitize_for_serialization(api.list_node(_request_timeout=5))
                    self.events += [Seen(n["metadata"]["name"], n) for n in listed["items"]]
                    version = listed["metadata"]["resourceVersion"]
                stream = watch.Watch().stream(
                    api.list_node, resource_version=version, timeout_seconds=2, _request_timeout=5
                )
                for event in stream:
                    node: Any = event["raw_object"]
                    self.events.append(Seen(node["metadata"]["name"], node))
                    version = node["metadata"]["resourceVersion"]
            except (ApiException, HTTPError):
                time.sleep(EVERY_S)


def _ready(client: ApiClient) -> bool | None:
    """Whether the API says it is ready; None when it is only slow."""
    url = f"{client.configuration.host}/readyz"
    try:
        answer = client.rest_client.request("GET", url, _request_timeout=10)
    except ReadTimeoutError:
        return None
    except (ApiException, HTTPError):
        return False
    return bool(answer.status == 200)


def _client(config: Object, ip: str, folder: Path) -> ApiClient:
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    found = Configuration(host=f"https://{ip}:6443")
    found.retries = False
    for attribute, data in (
        ("cert_file", user["client-certificate-data"]),
        ("key_file", user["client-key-data"]),
        ("ssl_ca_cert", cluster["certificate-authority-data"]),
    ):
        file = folder / attribute
        file.write_bytes(base64.b64decode(data))
        setattr(found, attribute, str(file))
    return ApiClient(found)
