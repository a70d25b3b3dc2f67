"""What K3s left on a node, read by one command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.leftovers import TOPICS, Options, find_script


@dataclass(frozen=True)
class Found:
    """The things of each topic of `cluster.leftovers.TOPICS`; a topic without things is absent."""

    topics: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, topic: str) -> tuple[str, ...]:
        """The things of one topic."""
        return self.topics.get(topic, ())

    def to_json(self) -> dict[str, list[str]]:
        """Plain data for `pyinfra --json`."""
        return {topic: list(things) for topic, things in self.topics.items()}


def parse(lines: Iterable[str]) -> Found:
    """Read the script's lines; raises ValueError when they end early."""
    topics: dict[str, tuple[str, ...]] = {}
    complete = False
    for line in lines:
        topic, tab, thing = line.partition("\t")
        if tab and topic in TOPICS:
            topics[topic] = (*topics.get(topic, ()), thing)
        complete = complete or line == "end"
    if not complete:
        raise ValueError("the leftovers fact ended early")
    return Found(topics)


class Leftovers(FactBase[Found]):
    """What K3s left on the node: units, processes, mounts, links, rules, files.

    + options: what a reset spares, which is left out
    """

    def command(self, options: Options) -> str:
        """One shell script; exits 0 on a bare host too."""
        return find_script(options)

    def process(self, output: list[str]) -> Found:
        """The script's lines by topic."""
        try:
            return parse(output)
        except ValueError as error:
            raise FactProcessError(str(error)) from error
