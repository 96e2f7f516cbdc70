"""Names of every column of every packed feature vector, and what a missing row means.

Feast stores one float32 list per person and view; these layouts are the only place that says which
position holds what. Order is part of the contract: it enters `feature_repo.schema.offered_schema`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UnknownColumn

NAN = float("nan")
RATE_PRIOR = 0.3  # a person with no decisions at all is taken to be liked, and to like, this often
RATE_STRENGTH = 10.0  # decisions after which the person's own record weighs as much as the prior

GENDER_CODES: Mapping[str, int] = {"woman": 1, "man": 2, "nonbinary": 3}
FIRST_OTHER_GENDER = 4
N_GENDERS = 16  # code 0 is "unknown"
INTEREST_WORDS = 10
INTEREST_BITS_PER_WORD = 24  # every integer below 2**24 is exact in float32
N_INTEREST_BUCKETS = INTEREST_WORDS * INTEREST_BITS_PER_WORD
N_ATTRIBUTES = 24
SECONDS_PER_DAY = 86_400.0
ACTIVITY_TTL_DAYS = 400  # what people did goes stale; what they say of themselves holds until they say otherwise


@dataclass(frozen=True)
class Feature:
    """One named number: what it means, and the value of a person without a row in its view."""

    name: str
    description: str
    default: float = 0.0


@dataclass(frozen=True)
class Layout:
    """The ordered features of one view of a person; rows older than `ttl_days` do not count (0: all do)."""

    name: str
    description: str
    features: tuple[Feature, ...]
    ttl_days: int = 0

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the features."""
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return len(self.features)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {column: position for position, column in enumerate(self.columns)}

    def index(self, column: str) -> int:
        """Return the position of `column`; raises UnknownColumn."""
        try:
            return self._positions[column]
        except KeyError:
            raise UnknownColumn(f"The layout {self.name} has no column {column!r}: it has {self.columns}.") from None

    @cached_property
    def default_row(self) -> NDArray[np.float32]:
        """Return float32[width]: what a person without a row in this view is taken to have."""
        row = np.array([feature.default for feature in self.features], dtype=np.float32)
        row.flags.writeable = False
        return row

    def default_rows(self, n: int) -> NDArray[np.float32]:
        """Return float32[n, width], writable, of default rows."""
        return np.tile(self.default_row, (n, 1))


PROFILE = Layout(
    "user_profile",
    "What a person says about themselves: age, gender, wishes, home, interests.",
    (
        Feature("birth_day", "Days from 1970-01-01 to the birth day, NaN unknown.", NAN),
        Feature("gender", "Code of the gender, 0 unknown."),
        Feature("seeking", "Sum of 2**code over the genders looked for, 0 anybody."),
        Feature("age_min", "Lowest age wanted in whole years, NaN no restriction.", NAN),
        Feature("age_max", "Highest age wanted in whole years, NaN no restriction.", NAN),
        Feature("latitude", "Home in degrees north, NaN unknown.", NAN),
        Feature("longitude", "Home in degrees east, NaN unknown.", NAN),
        Feature("max_distance_km", "Largest distance wanted, NaN no restriction.", NAN),
        Feature("n_interests", "Number of different interests."),
        Feature("bio_length", "Characters of the text about oneself."),
        Feature("created_day", "Days, with a fraction, from 1970-01-01 to the registration.", NAN),
        *(
            Feature(f"interests_{word:02d}", f"Buckets {first} to {first + INTEREST_BITS_PER_WORD - 1} as bits.")
            for word, first in enumerate(range(0, N_INTEREST_BUCKETS, INTEREST_BITS_PER_WORD))
        ),
    ),
)
ATTRIBUTES = Layout(
    "user_attributes",
    "Numeric attributes of the imported data set, one slot each.",
    tuple(
        Feature(f"attribute_{slot:02d}", f"The imported attribute of slot {slot}, NaN unknown.", NAN)
        for slot in range(N_ATTRIBUTES)
    ),
)
ACTIVITY = Layout(
    "user_activity",
    "Likes and passes sent and received in windows, smoothed like rates, last seen.",
    (
        Feature("likes_sent_7d", "Likes sent in the last 7 days."),
        Feature("likes_sent_30d", "Likes sent in the last 30 days."),
        Feature("passes_sent_30d", "Passes sent in the last 30 days."),
        Feature("likes_received_7d", "Likes received in the last 7 days."),
        Feature("likes_received_30d", "Likes received in the last 30 days."),
        Feature("passes_received_30d", "Passes received in the last 30 days."),
        Feature("decisions_sent", "Likes and passes sent, ever."),
        Feature("decisions_received", "Likes and passes received, ever."),
        Feature("like_rate_given", "Smoothed rate of likes among the decisions sent.", RATE_PRIOR),
        Feature("like_rate_received", "Smoothed rate of likes among the decisions received.", RATE_PRIOR),
        Feature("last_active_day", "Days, with a fraction, from 1970-01-01 to the last act, NaN never seen.", NAN),
    ),
    ttl_days=ACTIVITY_TTL_DAYS,
)
RECIPROCITY = Layout(
    "user_reciprocity",
    "Matches, how often likes are returned, messages.",
    (
        Feature("matches_7d", "Matches of the last 7 days that neither a pass nor a block has ended."),
        Feature("matches_30d", "Matches of the last 30 days that neither a pass nor a block has ended."),
        Feature("matches", "Matches that neither a pass nor a block has ended."),
        Feature("match_rate", "Smoothed rate of matches among the likes sent.", RATE_PRIOR),
        Feature("like_back_rate", "Smoothed rate of matches among the likes received.", RATE_PRIOR),
        Feature("messages_sent_30d", "Messages sent in the last 30 days."),
        Feature("messages_received_30d", "Messages received in the last 30 days."),
    ),
    ttl_days=ACTIVITY_TTL_DAYS,
)
INTEREST_COLUMNS = PROFILE.columns[-INTEREST_WORDS:]
ATTRIBUTE_COLUMNS = ATTRIBUTES.columns
VIEWS = (PROFILE, ATTRIBUTES, ACTIVITY, RECIPROCITY)

LISTED_SOURCES = ("retrieval", "item_knn", "user_knn", "spectral", "ease", "popular")
"""The candidate sources by whose score the people of a list are placed."""
SOURCE_COLUMNS = (
    "item_knn_score",  # how similar the candidate is to those the requester liked, by who likes them both
    "user_knn_score",  # how many of the people with a like taste like the candidate
    "spectral_score",
    "ease_score",
    "popular_score",  # likes received, the latest weighing most
    "item_knn_score_backward",  # how similar the requester is to those the candidate liked
    "like_log_odds",  # of a like of the requester for the candidate, from the likes and passes of both
    "like_log_odds_backward",
)
"""What past decisions say of a directed pair, NaN where a source knows nothing."""
LIST_COLUMNS = (
    *(f"{source}_place" for source in LISTED_SOURCES),  # log(1 + place by this score among the candidates), 0 is best
    *(f"{source}_share" for source in LISTED_SOURCES),  # where the score lies between the lowest, 0, and the highest, 1
)
"""What a candidate is beside the other candidates of one request; NaN for a pair that stands alone."""
EVIDENCE_COLUMNS = (*SOURCE_COLUMNS, *LIST_COLUMNS)
TASTE_COLUMNS = ("score_forward", "score_backward", "similarity_to_liked", "liked_requester")
"""What the factors know of a directed pair; forward is requester -> candidate."""
CONTEXT_COLUMNS = (*TASTE_COLUMNS, *EVIDENCE_COLUMNS)
"""What the first stage knows of a directed pair."""

PAIR_COLUMNS = (
    "age_requester",  # years with a fraction
    "age_candidate",
    "age_gap",  # candidate minus requester
    "abs_age_gap",
    "candidate_age_position",  # where the candidate's age lies in the requester's range: 0 lower end, 1 upper end
    "requester_age_position",
    "distance_km",
    "log_distance_km",  # log(1 + distance)
    "distance_to_requester_limit",  # distance / the requester's maximum
    "distance_to_candidate_limit",
    "shared_interests",
    "interest_jaccard",
    "attribute_distance",  # mean of the gaps below over the slots that both have
    *(f"attribute_gap_{slot:02d}" for slot in range(N_ATTRIBUTES)),  # |a - b| / max(|a|, |b|, 1)
    "requester_tenure_days",
    "candidate_tenure_days",
    "requester_idle_days",
    "candidate_idle_days",
    "candidate_n_interests",
    "candidate_bio_length",
    *TASTE_COLUMNS,
    "score_product",
    "score_min",
)
PERSON_COLUMNS = (*ACTIVITY.columns, *RECIPROCITY.columns, *ATTRIBUTES.columns)
# A clock reading means nothing to a ranker: the pair columns hold the days since instead.
_CLOCK_COLUMNS = ("last_active_day",)
SIDE_COLUMNS = tuple(column for column in PERSON_COLUMNS if column not in _CLOCK_COLUMNS)
RANKING_FEATURES = (
    *(f"requester_{column}" for column in SIDE_COLUMNS),
    *(f"candidate_{column}" for column in SIDE_COLUMNS),
    *PAIR_COLUMNS,
    *EVIDENCE_COLUMNS,
)
"""The full ranking vector of a directed pair, in order."""

_OWN_DISCLOSED = (
    "likes_sent_7d",
    "likes_sent_30d",
    "passes_sent_30d",
    "decisions_sent",
    "like_rate_given",
    "matches_7d",
    "matches_30d",
    "matches",
    "match_rate",
    "messages_sent_30d",
    "messages_received_30d",
    "tenure_days",
    "idle_days",
    *ATTRIBUTE_COLUMNS,
)
_PAIR_DISCLOSED = (
    "age_requester",
    "age_candidate",
    "age_gap",
    "abs_age_gap",
    "candidate_age_position",
    "distance_km",
    "log_distance_km",
    "distance_to_requester_limit",
    "shared_interests",
    "interest_jaccard",
    "candidate_n_interests",
    "candidate_bio_length",
    "score_forward",
    "score_backward",
    "similarity_to_liked",
    "score_product",
    "score_min",
    "item_knn_score",
    "user_knn_score",
    "spectral_score",
    "ease_score",
    "like_log_odds",
    *LIST_COLUMNS,
)
DISCLOSED = frozenset((*(f"requester_{column}" for column in _OWN_DISCLOSED), *_PAIR_DISCLOSED))
"""The features that an explanation may name to the requester: what they did and said themselves, and what they see of
the other. Nothing else is ever named: what others did, whom they wish for, who liked or passed on whom without a match.
A new feature stays unnamed until it stands here."""
_OTHER_NAMES = {
    "age_requester": "age_candidate",
    "score_forward": "score_backward",
    "distance_to_requester_limit": "distance_to_candidate_limit",
    "similarity_to_liked": "similarity_to_liked_backward",
    "liked_requester": "liked_candidate",
}
_OTHER_NAMES |= {other: name for name, other in _OTHER_NAMES.items()}


def other_way_round(name: str) -> str:
    """Return what a ranking feature of the reversed pair is called from the side of the requester."""
    for side, opposite in (("requester_", "candidate_"), ("candidate_", "requester_")):
        if name.startswith(side):
            return opposite + name.removeprefix(side)
    return _OTHER_NAMES.get(name, name)
