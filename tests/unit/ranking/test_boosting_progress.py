import numpy as np

from pipelines.ranking.config import RankerConfig
from pipelines.ranking.train import train_ranker


def test_boosting_tells_every_tenth_round_with_its_losses() -> None:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(600, 3)).astype(np.float32)
    labels = (features[:, 0] + rng.normal(size=600) > 0).astype(np.float32)
    told: list[tuple[int, int, set[str]]] = []

    def progress(done: int, rounds: int, losses: dict[str, float], seconds: float) -> None:
        assert seconds >= 0
        assert all(0 < loss < 1 for loss in losses.values())
        told.append((done, rounds, set(losses)))

    config = RankerConfig(rounds=25, early_stopping_rounds=25, threads=1)
    _, report = train_ranker(
        features,
        labels,
        np.arange(600, dtype=np.int64),
        config,
        feature_names=("a", "b", "c"),
        progress=progress,
    )
    judged = [entry for entry in told if "validation" in entry[2]]
    again = [entry for entry in told if "validation" not in entry[2]]
    assert [done for done, _, _ in judged] == [1, 10, 20, 25]
    assert {rounds for _, rounds, _ in judged} == {25}
    assert {rounds for _, rounds, _ in again} == {report.rounds}
    assert again[-1][0] == report.rounds
