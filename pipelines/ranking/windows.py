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

from pipelines.evaluation.spread import Spread
from pipelines.features.events import Events
from pipelines.features.history import PeopleHistory
from pipelines.inputs import before_window, microseconds_of
from pipelines.ranking.requests import PastRequests
from pipelines.ranking.rows import Window
from pipelines.ranking.sessions import has_decided
from pipelines.retrieval.config import IndexBuildConfig, NeighboursConfig
from pipelines.retrieval.dataset import first_decisions
from pipelines.retrieval.meeting import MET, Meeting
from pipelines.retrieval.stage import Ground, StageConfig
from pipelines.retrieval.twins import EARLY, JUDGED, SPREAD, twin
from pipelines.state import Current
from registry.artifacts import verify_artifact
from registry.item_index import ItemIndex
from registry.neighbours import Neighbours
from registry.scoring.first_stage import FirstStage, FittedStage

if TYPE_CHECKING:
    from pipelines.inputs import Snapshot
    from pipelines.resources import Platform

STAGE_OF = {JUDGED: "judged_stage", SPREAD: "spread_stage"}
_QUERIES = 100
SEED = 7
"""Of the pairs held back: the fit of the twin and all who use it must hold back the same."""


@dataclass
class TrainingGround:
    """A snapshot, its windows, and the twins of the embedding on this disk."""

    platform: "Platform"
    snapshot: "Snapshot"
    pointer: Current
    last_likes: int
    seed: int
    _stages: dict[str, FirstStage] = field(default_factory=dict)

    @classmethod
    def of(cls, platform: "Platform", made: Current, last_likes: int, seed: int = SEED) -> "TrainingGround":
        """Return the ground of what was made from a snapshot."""
        from pipelines.ranking.assets import snapshot_of

        return cls(platform, platform.snapshot(snapshot_of(platform, made)), made, last_likes, seed)

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
        return self.platform.state.require("embeddings").facts.get(MET) == Meeting.BY_CHANCE

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
    def spread(self) -> Spread:
        """Return the pairs that the spread twin has not learned."""
        return Spread.of(self.learned(self.end_us), self.end_us, self.seed)

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
            self._stages[name] = kept or self.ground.stage(twin(self.platform, name), learned, until_us, config)
        return self._stages[name]

    def keep_stages(self, platform: "Platform", run_id: str) -> None:
        """Keep the stages on which lists are judged for the steps that do."""
        for name in (JUDGED, SPREAD):
            self._keep(platform, name, run_id)

    def _keep(self, platform: "Platform", name: str, run_id: str) -> None:
        stage, made = self._stages[name], platform.state.require(name)
        if stage.neighbours is None:
            return
        beside = stage.neighbours.writers()
        asset = STAGE_OF[name]
        with platform.state.staging(asset) as scratch:
            staged = scratch / "artifact"
            manifest = stage.index.save(staged, {"embedding_digest": made.digest}, beside=beside)
            directory = platform.state.adopt(staged, asset, manifest.digest)
        platform.state.publish(
            Current(
                asset=asset, path=directory, digest=manifest.digest, run_id=run_id, as_of=made.as_of,
                t0=made.t0, t1=made.t1, inputs={**made.inputs, name: made.digest},
            )
        )  # fmt: skip

    def _kept(self, name: str) -> FittedStage | None:
        if name not in STAGE_OF:
            return None
        kept, made = self.platform.state.find(STAGE_OF[name]), self.platform.state.require(name)
        if kept is None or kept.inputs.get(name) != made.digest:
            return None
        manifest = verify_artifact(kept.path, kept.digest)
        index = ItemIndex.load(kept.path, verified=manifest)
        return FittedStage(twin(self.platform, name), index, Neighbours.load(kept.path, manifest), self.last_likes)

    def matched(self) -> npt.NDArray[np.bool_]:
        """Say which decisions of the late window are likes of people who are a match at the end."""
        late = self.first_decisions.between(self.t1_us, self.end_us)
        low, high = np.minimum(late.actor, late.target), np.maximum(late.actor, late.target)
        end = np.full(len(late), self.end_us, dtype=np.int64)
        return np.asarray(late.is_like & self.snapshot.events.matches.hold(low, high, end))
