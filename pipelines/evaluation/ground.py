"""The ground that releases are judged on: one snapshot, its windows and people's history, shared by all of them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.scene import Scene
from pipelines.evaluation.windows import Windows
from pipelines.features.history import PeopleHistory
from pipelines.ranking.context import Factors
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.refresh import refreshed
from registry.embedding import Embedding
from registry.ranker import Ranker

if TYPE_CHECKING:
    from pipelines.inputs import Snapshot


@dataclass(frozen=True)
class Ground:
    """`history` knows everybody as of T1, as of each later snapshot of the features, and at the end."""

    snapshot: "Snapshot"
    windows: Windows
    history: PeopleHistory

    @classmethod
    def of(cls, snapshot: "Snapshot", windows: Windows) -> Self:
        """Photograph everybody as often as the features do from T1 on."""
        from pipelines.features.assets import FeaturesStep, instants_for

        instants = [at for at in instants_for(snapshot, FeaturesStep()) if at > windows.t1]
        after_t1 = windows.t1 + pd.Timedelta(microseconds=1)
        return cls(snapshot, windows, PeopleHistory.build(snapshot.people, snapshot.events, [after_t1, *instants]))

    def scene(
        self,
        embedding: Embedding,
        ranker: Ranker,
        config: EvaluationConfig,
        *,
        learned_after_us: int | None,
        fitted_us: int,
        last_likes: int,
        pending_likes: bool,
    ) -> Scene:
        """Set the scene at T1 for a ranker and an embedding fitted after `learned_after_us` up to `fitted_us`."""
        people, events, windows = self.snapshot.people, self.snapshot.events, self.windows
        inputs = inputs_of(people, fitted_us / 1e6)
        # As in serving: whoever decided since the fit has fresh factors, from decisions up to T1 only.
        current, _ = refreshed(embedding, events.between(learned_after_us, windows.t1_us), fitted_us, inputs)
        return Scene(
            people=self.history.as_of(windows.t1_us + 1),
            events=events,
            windows=windows,
            factors=Factors.of(current, people.user_ids, inputs),
            ranker=ranker,
            config=config,
            pending_likes=pending_likes,
            visible=self.snapshot.users["visible"].to_numpy().astype(bool),
            last_likes=last_likes,
        )

    def at_the_end(self, scene: Scene) -> Scene:
        """Return a scene moved to the end of the snapshot, where nothing is held out; its factors stay as they are."""
        end_us = self.windows.end_us
        windows = replace(self.windows, t1_us=end_us)
        return replace(scene, people=self.history.as_of(end_us + 1), windows=windows)


def windows_between(snapshot: "Snapshot", t0_us: int, t1_us: int) -> Windows:
    """Return windows with these edges and the snapshot's last decision as their end."""
    times = snapshot.events.at_us[snapshot.events.is_decision]
    end_us = int(times[-1])
    edges = np.searchsorted(times, [t0_us, t1_us, end_us], side="right")
    first, second, third = (int(count) for count in np.diff(np.concatenate([[0], edges])))
    return Windows(t0_us, t1_us, end_us, (first, second, third))
