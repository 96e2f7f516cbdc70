"""The closed sets of words that answers, metrics and logs use: levels, reasons, sources, stages.

Metric labels and the OpenAPI document are built from these, so a new word is added here or nowhere.
"""

from enum import IntEnum, StrEnum


class Level(IntEnum):
    """How well an answer was made; 1 is best."""

    FULL = 1
    CONTENT = 2
    RANDOM = 3
    EMPTY = 4

    @property
    def label(self) -> str:
        """Return the name that answers carry."""
        return self.name.lower()


class Reason(StrEnum):
    """Why an answer is not of level 1, or not from the arm of the experiment that it was to be from."""

    CHALLENGER_UNAVAILABLE = "challenger_unavailable"
    CHALLENGER_FAILED = "challenger_failed"
    NO_RELEASE = "no_release"
    RELEASE_REFUSED = "release_refused"
    RETRIEVAL_FAILED = "retrieval_failed"
    RANKING_FAILED = "ranking_failed"
    CONTENT_FAILED = "content_failed"
    POPULATION_UNAVAILABLE = "population_unavailable"
    ELIGIBILITY_UNAVAILABLE = "eligibility_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Why(StrEnum):
    """Why a person was recommended to another."""

    SHARED_INTERESTS = "shared_interests"
    NEAR = "near"
    SAME_AGE = "same_age"
    LIKE_THOSE_LIKED = "like_those_liked"
    TASTE = "taste"
    SIMILAR_TASTE = "similar_taste"
    BIO = "bio"
    EXPLORED = "explored"


class CandidateSource(StrEnum):
    """Which candidate source found a person."""

    RETRIEVAL = "retrieval"
    ITEM_KNN = "item_knn"
    USER_KNN = "user_knn"
    SPECTRAL = "spectral"
    EASE = "ease"
    POPULAR = "popular"
    CONTENT = "content"
    POPULAR_NEARBY = "popular_nearby"
    RANDOM = "random"
    LIKED_YOU = "liked_you"


class Stage(StrEnum):
    """The timed steps of one answer."""

    ELIGIBILITY = "eligibility"
    FEATURES = "features"
    RETRIEVAL = "retrieval"
    FILTERING = "filtering"
    RANKING = "ranking"
    RERANKING = "reranking"
    SAFETY = "safety"
    CACHE = "cache"
    EXPERIMENT = "experiment"
