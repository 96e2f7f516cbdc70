"""The two windows that a ranker learns from, each with the first stage as it was at the window's begin.

Decisions in (T0, T1] meet the early twin of the embedding, those after T1 the judged twin. Both windows teach in the
end; the second one judges first.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.evaluation.spread import HeldBackPairs
from pipelines.features.events import Events
from pipelines.features.history import PeopleHistory
from pipelines.ranking.requests import PastRequests
from pipelines.ranking.rows import Window
from pipelines.ranking.sessions import has_decided
from pipelines.results.inputs import before_window, microseconds_of
from pipelines.results.store import StepResult
from pipelines.retrieval.config import IndexBuildConfig, NeighboursConfig
from pipelines.retrieval.dataset import first_decisions
from pipelines.retrieval.meeting import MET, Meeting
from pipelines.retrieval.stage import Ground, StageConfig
from pipelines.retrieval.twins import EARLY, JUDGED, SPREAD, twin
from registry.models.artifacts import verify_artifact
from registry.models.item_index import ItemIndex
from registry.models.neighbours import Neighbours
from registry.scoring.first_stage import FirstStage, FittedStage

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.results.inputs import DataSnapshot

STAGE_OF = {JUDGED: "judged_stage", SPREAD: "spread_stage"}
_QUERIES = 100
SEED = 7
"""Of the pairs held back: the fit of the twin and all who use it must hold back the same."""


@dataclass
class TrainingGround:
    """A snapshot, its windows, and the twins of the embedding."""

    platform: "Platform"
    snapshot: "DataSnapshot"
    pointer: StepResult
    last_likes: int
    seed: int
    _stages: dict[str, FirstStage] = field(default_factory=dict)

    @classmethod
    def of(
        cls, platform: "Platform", made: StepResult, interactions: StepResult, last_likes: int, seed: int = SEED
    ) -> "TrainingGround":
        """Return the ground of what was made from a snapshot, which may be older than the newest `interactions`."""
        from pipelines.ranking.assets import snapshot_of

        return cls(platform, platform.snapshot(snapshot_of(made, interactions)), made, last_likes, seed)

    @property
    def t0_us(self) -> int:
        """Return the last microsecond that the early twin knows."""
        return microseconds_of(self.pointer.t0 or self.pointer.as_of)

    @property
    def t1_us(self) -> int:
        """Return the last microsecond that the judged twin knows."""
        return microseconds_of(self.pointer.t1 or self.pointer.as_of)

    @property
    def end_us(self) -> int:
        """Return the instant that bounds the data."""
        return microseconds_of(self.pointer.as_of)

    @property
    def met_by_chance(self) -> bool:
        """Tell whether the pairs that were judged had met by chance, as the embeddings' step found."""
        return self.pointer.facts.get(MET) == Meeting.BY_CHANCE

    @cached_property
    def ground(self) -> Ground:
        """Return people's history at the begin of both windows and at the end."""
        instants = [pd.Timestamp(at + 1, unit="us", tz="UTC") for at in (self.t0_us, self.t1_us, self.end_us)]
        return Ground(self.snapshot, PeopleHistory.build(self.snapshot.people, self.snapshot.events, instants))

    @cached_property
    def first_decisions(self) -> Events:
        """Return every pair's first decision, in order of time."""
        return first_decisions(self.snapshot.events)

    def early(self) -> Window:
        """Return the window (T0, T1], before the early twin."""
        return self._window(EARLY, self.t0_us, self.t1_us)

    def late(self) -> Window:
        """Return the window after T1, before the judged twin."""
        return self._window(JUDGED, self.t1_us, self.end_us)

    @cached_property
    def spread(self) -> HeldBackPairs:
        """Return the pairs that the spread twin has not learned."""
        return HeldBackPairs.of(self.learned(self.end_us), self.end_us, self.seed)

    def missing(self, *, judged: bool) -> Window:
        """Return one half of the held-back decisions, by person, before the spread twin: to learn, or to judge by."""
        people = self.ground.people_at(self.end_us + 1)
        return Window(
            self.stage(SPREAD, self.end_us),
            self.ground.population_at(self.end_us + 1),
            PastRequests(people, self.spread.known, self.platform.settings.ranking.pending_likes),
            self.spread.halves(self.seed)[judged],
            has_decided(self.spread.known),
        )

    def _window(self, name: str, until_us: int, end_us: int) -> Window:
        people = self.ground.people_at(until_us + 1)
        return Window(
            self.stage(name, until_us),
            self.ground.population_at(until_us + 1),
            PastRequests(people, self.snapshot.events, self.platform.settings.ranking.pending_likes),
            self.first_decisions.between(until_us, end_us),
            has_decided(self.learned(until_us)),
        )

    def learned(self, until_us: int) -> Events:
        """Return the events that a stage fitted up to an instant has learned from."""
        return self.snapshot.events.between(before_window(self.snapshot.interactions_pointer.facts), until_us)

    def stage(self, name: str, until_us: int) -> FirstStage:
        """Return the stage of a twin, made anew unless it is kept."""
        if name not in self._stages:
            kept = self._kept(name)
            learned = self.spread.known if name == SPREAD else self.learned(until_us)
            config = StageConfig(NeighboursConfig(), IndexBuildConfig(sample_queries=_QUERIES), self.last_likes)
            self._stages[name] = kept or self.ground.stage(
                twin(self.platform, name, self.pointer), learned, until_us, config
            )
        return self._stages[name]

    def keep_stages(self) -> dict[str, str]:
        """Keep the stages on which lists are judged for the steps that do, and return the digest of each."""
        kept = {STAGE_OF[name]: self._keep(name) for name in (JUDGED, SPREAD)}
        return {asset: digest for asset, digest in kept.items() if digest is not None}

    def _keep(self, name: str) -> str | None:
        stage, results = self._stages[name], self.platform.results
        if stage.neighbours is None:
            return None
        beside = stage.neighbours.writers()
        with results.staging(STAGE_OF[name]) as scratch:
            staged = scratch / "artifact"
            manifest = stage.index.save(staged, {"embedding_digest": self.pointer.parts[name]}, beside=beside)
            results.adopt(staged, STAGE_OF[name], manifest.digest)
        return manifest.digest

    def _kept(self, name: str) -> FittedStage | None:
        if name not in STAGE_OF:
            return None
        digest = self.pointer.parts.get(STAGE_OF[name])
        if digest is None:
            return None
        kept = self.platform.results.path(STAGE_OF[name], digest)
        manifest = verify_artifact(kept, digest)
        index = ItemIndex.load(kept, verified=manifest)
        neighbours = Neighbours.load(kept, manifest)
        return FittedStage(twin(self.platform, name, self.pointer), index, neighbours, self.last_likes)

    def matched(self) -> npt.NDArray[np.bool_]:
        """Say which decisions of the late window are likes of people who are a match at the end."""
        late = self.first_decisions.between(self.t1_us, self.end_us)
        low, high = np.minimum(late.actor, late.target), np.maximum(late.actor, late.target)
        end = np.full(len(late), self.end_us, dtype=np.int64)
        return np.asarray(late.is_like & self.snapshot.events.matches.hold(low, high, end))
