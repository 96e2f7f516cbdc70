"""Fit a whole first stage on what was known up to an instant: factors, index, neighbours, and people as of then."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_repo.population.people import People
from feature_repo.population.population import Population
from pipelines.features.history import PeopleHistory
from pipelines.retrieval.config import IndexBuildConfig, NeighboursConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.neighbours import fit_neighbours
from registry.models.embedding import Embedding
from registry.scoring.first_stage import FittedStage

if TYPE_CHECKING:
    from pipelines.features.events import Events
    from pipelines.results.inputs import DataSnapshot


@dataclass(frozen=True)
class StageConfig:
    """How the parts beside the factors are fitted."""

    neighbours: NeighboursConfig
    index: IndexBuildConfig
    last_likes: int


@dataclass(frozen=True)
class Ground:
    """A snapshot with people's history, from which stages and populations of past instants are made."""

    snapshot: "DataSnapshot"
    history: PeopleHistory

    def people_at(self, at_us: int) -> People:
        """Return everybody as of an instant."""
        return self.history.as_of(at_us)

    def population_at(self, at_us: int) -> Population:
        """Return everybody who is visible, as of an instant."""
        return Population.build(self.people_at(at_us).take(np.flatnonzero(self._visible)))

    def stage(self, embedding: Embedding, events: "Events", until_us: int, config: StageConfig) -> FittedStage:
        """Return the stage of an embedding that was fitted on these events, which end at `until_us`."""
        visible = self.snapshot.people.take(np.flatnonzero(self._visible))
        index, _ = build_candidate_index(embedding, visible.user_ids, inputs_of(visible, until_us / 1e6), config.index)
        everybody = inputs_of(self.snapshot.people, until_us / 1e6)
        neighbours = fit_neighbours(events, config.neighbours, everybody)
        return FittedStage(embedding, index, neighbours, config.last_likes)

    @property
    def _visible(self) -> npt.NDArray[np.bool_]:
        visible: npt.NDArray[np.bool_] = self.snapshot.users["visible"].to_numpy().astype(bool)
        return visible
