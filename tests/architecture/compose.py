"""`infra/compose/compose.yaml` as Compose reads it: anchors merged, variables replaced by their values or defaults."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from tests.architecture.sources import ROOT

COMPOSE = ROOT / "infra" / "compose"
TEXT = (COMPOSE / "compose.yaml").read_text()
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+):-([^}]*)\}")


def composed(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the whole file; `environment` stands for `.env`."""
    given = environment or {}
    replaced = VARIABLE.sub(lambda found: given.get(found[1]) or found[2], TEXT)
    return dict(yaml.safe_load(replaced.replace("$$", "$")))


@cache
def _default() -> dict[str, Any]:
    return composed()


def services(profile: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the services, by name; of one profile where one is given."""
    every: dict[str, dict[str, Any]] = _default()["services"]
    return {name: service for name, service in every.items() if profile is None or profile in service["profiles"]}
