"""One kept answer: more people than were asked for, and what is needed to check them again at any later moment.

As JSON it is read back strictly: a field too many, a number that is none or another version of this shape is a miss.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from feature_repo.layout import PROFILE
from feature_repo.population.people import People
from serving.api.models import MAX_LIMIT
from serving.api.recommendation_models import OrderName, RecommendedPerson
from serving.reasons import Level
from serving.recommend.answers import Shown
from serving.recommend.pool import Int64, KnownRequester

FORMAT: Final = 2
MOST: Final = 2 * MAX_LIMIT + 10
DAY_S: Final = 86_400
_NOBODY: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class Entry:
    """People in order, best first, none of whom may be shown before Postgres was asked again.

    `requester` is who asked, as they were; `since` is the moment of the database after which a changed row was not
    seen; `at` is when it was made, `expires_at` when it ends, both unix seconds.
    """

    requester: KnownRequester
    level: Level
    release: str | None
    order: OrderName | None
    items: tuple[Shown, ...]
    propensities: tuple[float, ...]
    since: datetime | None
    at: float
    expires_at: float
    user_ids: Int64 = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_ids", np.array([item.user_id for item in self.items], dtype=np.int64))

    def keeps_at(self, at: float) -> bool:
        """Return whether it still counts: not expired, and made on the same day, because people grow older."""
        return at < self.expires_at and at // DAY_S == self.at // DAY_S

    def to_json(self) -> bytes:
        """Render a kept answer of level 1."""
        profile = self.requester.person.profile[0]
        return to_json(
            {
                "format": FORMAT,
                "user_id": self.requester.user_id,
                "profile": profile.tolist(),
                "version": self.requester.version,
                "updated_at": self.requester.updated_at,
                "release": self.release,
                "order": self.order,
                "items": self.items,
                "propensities": self.propensities,
                "since": self.since,
                "at": self.at,
                "expires_at": self.expires_at,
            },
            inf_nan_mode="null",
        )

    @classmethod
    def from_json(cls, body: bytes, user_id: int) -> Self:
        """Read what `to_json` wrote about `user_id`; raises ValueError."""
        stored = _Stored.model_validate_json(body)
        if stored.user_id != user_id or len(stored.propensities) != len(stored.items):
            raise ValueError(f"The kept answer is not one for person {user_id}.")
        profile = np.array([stored.profile], dtype=np.float32)  # None becomes NaN
        person = People.build([user_id], profile=profile)
        return cls(
            KnownRequester(
                user_id, person, _NOBODY, _NOBODY, _NOBODY, version=stored.version, updated_at=stored.updated_at
            ),
            Level.FULL,
            stored.release,
            stored.order,
            tuple(
                Shown(
                    int(item.user_id),
                    item.position,
                    item.score,
                    item.p_like,
                    item.p_liked_back,
                    tuple(item.sources),
                    item.explored,
                )
                for item in stored.items
            ),
            tuple(stored.propensities),
            stored.since,
            stored.at,
            stored.expires_at,
        )


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[2]
    user_id: int
    profile: list[float | None] = Field(min_length=PROFILE.width, max_length=PROFILE.width)
    version: int
    updated_at: AwareDatetime | None
    release: str | None
    order: OrderName | None
    items: list[RecommendedPerson] = Field(max_length=MOST)
    propensities: list[float]
    since: AwareDatetime | None
    at: float
    expires_at: float
