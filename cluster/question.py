"""What the combined fact of a host is asked beyond what every host is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Question:
    """Names of packages, settings, users and units, and paths of files whose hash is of use."""

    packages: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(word for one in fields(self) for word in getattr(self, one.name))


EVERYWHERE = Question()


def together(questions: Iterable[Question]) -> Question:
    """All of them as one, each word once."""
    asked = list(questions)
    return Question(
        **{
            one.name: tuple(dict.fromkeys(word for ask in asked for word in getattr(ask, one.name)))
            for one in fields(Question)
        }
    )
