"""How a list is ordered: which score, whose side, and how two directed scores become one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from pydantic import JsonValue

from registry.models.arrays import Floats


class Order(StrEnum):
    """Which order won on held-out lists, and is therefore served."""

    RANKER = "ranker"
    RETRIEVAL = "retrieval"
    ITEM_KNN = "item_knn"
    USER_KNN = "user_knn"
    SPECTRAL = "spectral"
    EASE = "ease"
    POPULAR = "popular"
    BLEND = "blend"


class Aggregator(StrEnum):
    """How the two directed probabilities become one reciprocal score."""

    PRODUCT = "product"
    HARMONIC = "harmonic"
    MIN = "min"
    GEOMETRIC = "geometric"
    REQUESTER = "requester"


class ForwardModel(StrEnum):
    """Which model speaks for the requester's side."""

    LIKE = "like"
    CHOICE = "choice"


@dataclass(frozen=True)
class ListPolicy:
    """How a list is ordered; `weight` is the share of the forward score in the retrieval query.

    `exposure_strength` says how much of the prices of exposure is subtracted: a setting of serving, never learned.
    """

    order: Order = Order.RANKER
    forward: ForwardModel = ForwardModel.LIKE
    aggregator: Aggregator = Aggregator.PRODUCT
    weight: float = 0.5
    exposure_strength: float = 0.0

    def parameters(self) -> dict[str, JsonValue]:
        """Return what the manifest holds of it."""
        return {
            "order": self.order.value,
            "forward": self.forward.value,
            "aggregator": self.aggregator.value,
            "weight": self.weight,
        }

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Read a manifest's parameters; what is missing has its default. Raises ValueError for an unknown name."""
        return cls(
            Order(str(parameters.get("order", Order.RANKER))),
            ForwardModel(str(parameters.get("forward", ForwardModel.LIKE))),
            Aggregator(str(parameters.get("aggregator", Aggregator.PRODUCT))),
            float(parameters.get("weight", 0.5)),
        )


def combine(forward: Floats, backward: Floats, aggregator: Aggregator | str = Aggregator.PRODUCT) -> Floats:
    """Return the reciprocal score, float32[n] in 0..1, of two directed probabilities."""
    match Aggregator(aggregator):
        case Aggregator.PRODUCT:
            score = forward * backward
        case Aggregator.HARMONIC:
            score = 2.0 * forward * backward / np.maximum(forward + backward, 1e-12)
        case Aggregator.MIN:
            score = np.minimum(forward, backward)
        case Aggregator.GEOMETRIC:
            score = np.sqrt(forward * backward)
        case Aggregator.REQUESTER:
            score = forward
    return np.asarray(score, dtype=np.float32)
