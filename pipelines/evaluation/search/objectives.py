"""What a trial is judged by: only decisions up to T1, so that the held-out window stays unseen by the search."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.evaluation.search.config import SearchConfig
    from pipelines.evaluation.search.study import Objective
    from pipelines.ranking.files import RankingRows
    from pipelines.results.inputs import DataSnapshot


def ranker_objective(rows: "RankingRows", config: "SearchConfig") -> "Objective":
    """Return an objective that grows trees on the early rows of the ranker's window, judged on the late.

    The rows are those that a model of likes is trained on. Raises OneClass where all of them say the same.
    """
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.ranking.config import RankerConfig
    from pipelines.ranking.learn import told_apart
    from pipelines.ranking.train import validation_loss

    early = rows.take(~rows.late)
    part, names = told_apart(early)
    known = early.take(part)
    features = known.features[:, [RANKING_FEATURES.index(name) for name in names]]

    def judge(parameters: Mapping[str, float], report: Callable[[int, float], None]) -> float:
        chosen = RankerConfig.model_validate({**parameters, "threads": config.threads, "seed": config.seed})
        return validation_loss(features, known.labels, known.at_us, chosen, after_round=report, feature_names=names)

    return judge


def embedding_objective(
    snapshot: "DataSnapshot", before_us: int | None, t0_us: int, config: "SearchConfig"
) -> "Objective":
    """Return an objective that judges fits by lists on the last likes up to T0: see `pipelines.retrieval.tuning`.

    Raises:
        TooFewLikes: too few people like somebody in the last part.
    """
    from pipelines.retrieval.config import EmbeddingConfig, TuningConfig
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.errors import TooFewLikes
    from pipelines.retrieval.tuning import Question, list_quality

    people = snapshot.people
    events, tuning = snapshot.events.between(before_us, t0_us), TuningConfig(seed=config.seed)
    question = Question.next(events, tuning) or Question.missing(events, tuning)
    if question is None:
        raise TooFewLikes(
            "Too few people like somebody before T0 for settings to be judged: train with the defaults, or import "
            "more likes."
        )

    def judge(parameters: Mapping[str, float], report: Callable[[int, float], None]) -> float:
        del report  # a fit has no value before its end
        chosen = EmbeddingConfig.model_validate({**parameters, "threads": config.threads, "seed": config.seed})
        return list_quality(question, people.user_ids, inputs_of(people, t0_us / 1e6), chosen).ndcg

    return judge
