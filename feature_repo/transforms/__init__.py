"""Pure functions from facts to features, called alike by training and by serving. No I/O, no clock, no state."""

from feature_repo.transforms.attributes import attribute_vectors
from feature_repo.transforms.content import CONTENT_WIDTH, content_inputs, content_score, content_score_at
from feature_repo.transforms.eligibility import NumberWish, Terms, Wishes, mutually_eligible
from feature_repo.transforms.fingerprints import profile_fingerprints
from feature_repo.transforms.measures import haversine_km, whole_years
from feature_repo.transforms.pair import PairContext, ranking_features, ranking_features_both, ranking_matrix
from feature_repo.transforms.profile import gender_code, interest_bucket, profile_vectors
from feature_repo.transforms.rates import smoothed_rate

__all__ = [
    "CONTENT_WIDTH",
    "NumberWish",
    "PairContext",
    "Terms",
    "Wishes",
    "attribute_vectors",
    "content_inputs",
    "content_score",
    "content_score_at",
    "gender_code",
    "haversine_km",
    "interest_bucket",
    "mutually_eligible",
    "profile_fingerprints",
    "profile_vectors",
    "ranking_features",
    "ranking_features_both",
    "ranking_matrix",
    "smoothed_rate",
    "whole_years",
]
