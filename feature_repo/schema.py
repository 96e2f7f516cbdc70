"""What a ranker is told about a pair, by name and version: it serves where all that it was trained on is offered.

A schema is a text of `name:version` words. The catalogue may have more than a ranker names: a new feature refuses no
earlier release.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from feature_repo.layout import RANKING_FEATURES, VIEWS

VERSIONS: Final[Mapping[str, int]] = {}
"""The versions of features beyond 1: raise one whenever its transformation gives other numbers for the same people.

A feature of a person stands for both sides; a feature of a pair for itself.
"""
FORMER: Final = "e7de14fa7815d3fd95f9dda80b94d6d2bc10ba5a74230bebffa6cd1ebb0fd669"
"""The digest that rankers carry which were trained before schemas had words: all features in version 1."""


def schema_of(names: Iterable[str]) -> str:
    """Return the schema of these ranking features, as this version computes them."""
    return " ".join(f"{name}:{_version(name)}" for name in sorted(set(names)))


def offered_schema() -> str:
    """Return the schema of everything that a ranker is offered here."""
    offered = schema_of(RANKING_FEATURES)
    return offered if VERSIONS else f"{offered} {FORMER}"


def part_of(schema: str, names: Iterable[str]) -> str:
    """Return the words of a schema that are about these features; a schema without words stays as it is."""
    wanted = set(names)
    return " ".join(word for word in schema.split() if word.rpartition(":")[0] in wanted) or schema


def not_offered(trained_on: str, offered: str) -> list[str]:
    """Return the words of a ranker's schema that are not offered, in order."""
    return sorted(set(trained_on.split()) - set(offered.split()))


@cache
def layout_digest() -> str:
    """Return the sha256 (hex) of the order and the defaults of people's columns, which arrays on disk must share."""
    described = [
        [layout.name, [[feature.name, repr(feature.default)] for feature in layout.features]] for layout in VIEWS
    ]
    return hashlib.sha256(json.dumps(described, separators=(",", ":")).encode()).hexdigest()


def _version(name: str) -> int:
    plain = name.removeprefix("requester_").removeprefix("candidate_")
    return max(VERSIONS.get(name, 1), VERSIONS.get(plain, 1))
