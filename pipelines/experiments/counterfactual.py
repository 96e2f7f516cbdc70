"""What a shadow would have reached, from what the champion showed and with which logged propensity.

In an experiment in the shadow the challenger ranks for the same requests and nobody sees it. Where exploration put
somebody whom the challenger would have put at the same place, the answer of the requester counts for the challenger,
and the more, the less likely the champion was to show that person there. So only the places are compared that
exploration reaches, where everybody eligible has a chance to be drawn: of a place that always holds the champion's
choice, no log says what another would have brought there. The effective number of showings says how much the estimates
rest on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.experiments.clustered import Floats
from pipelines.metrics.off_policy import (
    OffPolicyEstimate,
    doubly_robust,
    importance_weights,
    inverse_propensity,
    self_normalised,
)

IPS, SNIPS, ROBUST = "inverse propensity", "self-normalised", "doubly robust"
ESTIMATORS: Final = (IPS, SNIPS, ROBUST)
_HALVES: Final = 2


@dataclass(frozen=True)
class Showings:
    """What the champion showed where the shadow ranked too, one element for each person shown.

    `places` count from 1; `logged` is the champion's propensity of the person at the place. `target` is 1 where the
    shadow put the same person there and else 0: it drew by its own chance, so that is its propensity on average.
    `filled` says that the shadow put anybody there.
    """

    user_ids: NDArray[np.int64]
    places: NDArray[np.int64]
    logged: Floats
    target: Floats
    filled: NDArray[np.bool_]
    liked: NDArray[np.bool_]
    matched: NDArray[np.bool_]

    def drawn_by_chance(self) -> "Showings":
        """Return the showings at places that exploration reaches: a propensity was logged and lies within (0, 1)."""
        kept = (self.logged > 0) & (self.logged < 1)
        return Showings(
            self.user_ids[kept], self.places[kept], self.logged[kept], self.target[kept], self.filled[kept],
            self.liked[kept], self.matched[kept],
        )  # fmt: skip


@dataclass(frozen=True)
class Counterfactual:
    """The champion's own rate on these showings and the shadow's estimated ones, by measure and estimator."""

    showings: int
    own: Mapping[str, float]
    estimates: Mapping[str, Mapping[str, OffPolicyEstimate]]


def estimate(showings: Showings) -> Counterfactual | None:
    """Return what the shadow would have reached; None without a showing that was drawn by chance."""
    known = showings.drawn_by_chance()
    if not known.user_ids.size:
        return None
    weights = importance_weights(known.logged, known.target)
    rewards = {"like_rate": known.liked, "match_rate": known.matched}
    estimates = {}
    for measure, reward in rewards.items():
        predicted = by_place(known, reward, weights)
        estimates[measure] = {
            IPS: inverse_propensity(reward, weights, known.user_ids),
            SNIPS: self_normalised(reward, weights, known.user_ids),
            ROBUST: doubly_robust(
                reward, weights, known.user_ids,
                predicted=predicted, predicted_target=np.where(known.filled, predicted, 0.0),
            ),
        }  # fmt: skip
    own = {measure: float(reward.mean()) for measure, reward in rewards.items()}
    return Counterfactual(int(known.user_ids.size), own, estimates)


def by_place(showings: Showings, reward: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the weighted mean reward at each showing's place among the other half of the people, float64[n].

    It is the model of the doubly robust estimate: weak, and fitted on other people's answers than it is asked about.
    The weights make it one of whom the shadow would have shown: it is asked about no others.
    """
    half = np.unique(showings.user_ids, return_inverse=True)[1] % _HALVES
    n_places = int(showings.places.max()) + 1
    predicted = np.full(reward.size, float(reward.mean()))
    for number in range(_HALVES):
        others = half != number
        shown = np.bincount(showings.places[others], weights=weights[others], minlength=n_places)
        won = np.bincount(showings.places[others], weights=(weights * reward)[others], minlength=n_places)
        mine = np.flatnonzero((half == number) & (shown[showings.places] > 0))
        at = showings.places[mine]
        predicted[mine] = won[at] / shown[at]
    return predicted
