"""The rankers that the ranker's service holds: loaded when a release is first asked for, the last few stay.

They come from the local copies of releases or, where those are on another machine, from MLflow; every byte is verified.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from infra.clock import Clock
from infra.endpoints import running_mlflow
from infra.errors import DuetError
from infra.settings import Settings
from infra.web.token import mlflow_token
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.errors import CorruptArtifact, InvalidFeatures, UnknownVersion
from registry.mlflow.aliases import registry_at
from registry.mlflow.rest import MlflowRest
from registry.models.artifacts import verify_artifact
from registry.models.ranker import Ranker
from registry.promotion.release_cache import ReleaseCache
from registry.scoring.list_policy import ForwardModel
from serving.recommend.ranker_matrices import FeatureMatrix, Probabilities

KEPT: Final = 4
"""Rankers in memory: champion, challenger, and those before them that answers under way may still name."""
REST_S: Final = 5.0
"""How long a ranker that could not be loaded is not tried again."""
_KIND: Final = ArtifactKind.RANKER
Models = Mapping[ForwardModel, Ranker]


class ServedRankers:
    """Predicts with the rankers of releases; may be called from several threads."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._cache = ReleaseCache(settings.data_dir / "releases")
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, str], Models] = OrderedDict()
        self._failed: dict[tuple[int, str], tuple[float, DuetError]] = {}

    def predict(self, matrices: Sequence[FeatureMatrix]) -> list[Probabilities]:
        """Return the probabilities of each matrix, or its problem: one wrong matrix spoils no other."""
        answers = [Probabilities(problem="Not answered.")] * len(matrices)
        alike: defaultdict[tuple[str, str | None, ForwardModel], list[int]] = defaultdict(list)
        for place, matrix in enumerate(matrices):
            alike[matrix.release, matrix.digest, matrix.model].append(place)
        for (release, digest, model), places in alike.items():
            try:
                ranker = self.ranker(release, model, digest)
            except DuetError as error:
                found = [Probabilities(problem=str(error))] * len(places)
            else:
                found = _predicted(ranker, [matrices[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def ranker(self, release: str, model: ForwardModel, digest: str | None = None) -> Ranker:
        """Return a model of a release's ranker, which takes its own columns; load it if need be.

        Raises UnknownVersion, or whatever keeps it from being loaded.
        """
        version = ReleaseVersions.parse(release).ranker
        with self._lock:
            models = self._models(version, digest or self._digest_of(version))
        if model not in models:
            raise UnknownVersion(f"The ranker of {release} has no model `{model}`.")
        return models[model]

    def _models(self, version: int, digest: str) -> Models:
        key = version, digest
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        until_s, failure = self._failed.get(key, (0.0, None))
        if failure is not None and self._clock.monotonic() < until_s:
            raise failure
        try:
            self._held[key] = self._load(version, digest)
        except DuetError as error:
            self._failed = {key: (self._clock.monotonic() + REST_S, error)}
            raise
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        return self._held[key]

    def _load(self, version: int, digest: str) -> Models:
        directory = self._cache.directory(_KIND, version, digest)
        if not directory.is_dir():
            with self._registry(version) as registry:
                if registry.version(_KIND, version).digest != digest:
                    raise UnknownVersion(f"Version {version} of the ranker in MLflow is not the one asked for.")
                registry.download(_KIND, version, directory)
        models = Ranker.load_each(directory, verified=verify_artifact(directory, digest))
        for model in models.values():
            problem = model.check_canary()
            if problem is not None:
                raise CorruptArtifact(f"Version {version} of the ranker does not work here: {problem}.")
        return models

    def _digest_of(self, version: int) -> str:
        found = [verify_artifact(path).digest for path in (self._cache.root / _KIND.value).glob(f"{version}-*")]
        if len(found) == 1:
            return found[0]
        with self._registry(version) as registry:
            digest = registry.version(_KIND, version).digest
        if not digest:
            raise CorruptArtifact(f"Version {version} of the ranker has no digest in MLflow: register it with Duet.")
        return digest

    def _registry(self, version: int) -> MlflowRest:
        url = running_mlflow(self._settings)
        if url is None:
            raise UnknownVersion(
                f"Version {version} of the ranker has no copy below `{self._cache.root}`, and there is no MLflow "
                "server to fetch it from: set `DUET_MLFLOW__URL`."
            )
        return registry_at(url, self._settings.mlflow, token=mlflow_token(self._settings))


def _predicted(ranker: Ranker, matrices: Sequence[FeatureMatrix]) -> list[Probabilities]:
    width = len(ranker.offered_names)
    try:
        rows = [matrix.rows(width) for matrix in matrices]
        values = ranker.predict(np.concatenate(rows))
    except InvalidFeatures as error:
        if len(matrices) == 1:
            return [Probabilities(problem=str(error))]
        return [answer for matrix in matrices for answer in _predicted(ranker, [matrix])]
    ends = np.cumsum([len(part) for part in rows])[:-1]
    return [Probabilities(values=part.tolist()) for part in np.split(values, ends)]
