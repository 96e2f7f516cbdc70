"""Answers many people in one call: each by the whole path of a single call, a few of them at once.

What they ask Postgres and Redis for in the same turn of the event loop is read together; one body is parsed for all.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from serving.api.models import ErrorBody, ErrorDetail
from serving.api.recommendation_models import RecommendationBatch, RecommendationRequest
from serving.errors import ApiError, UnknownUser
from serving.people.names import Name, Names, renamed
from serving.recommend.answers import Answer
from serving.recommend.recommender import Recommender
from serving.resilience.deadline import Deadline

AT_ONCE: Final = 8
"""People of one batch who are answered at once; the other calls of the worker go on beside them."""


@dataclass(frozen=True)
class OneAnswered:
    """What `models.RecommendationResult` describes."""

    user_id: Name
    answer: Answer | dict[str, Any] | None
    error: ErrorBody | None


@dataclass(frozen=True)
class AllAnswered:
    """What `models.RecommendationResults` describes."""

    results: list[OneAnswered]
    request_id: str


async def recommend_all(
    recommender: Recommender,
    names: Names,
    batch: RecommendationBatch,
    request_id: str,
    deadline: Callable[[], Deadline],
) -> AllAnswered:
    """Return an answer for each person; `deadline` gives the one of an answer that begins now.

    Raises InvalidRequest for filters that ask attributes for what nobody has.
    """
    recommender.refuse_unfit(batch.filters)
    places = asyncio.Semaphore(AT_ONCE)
    asked: list[Name] = list(batch.user_ids)
    numbers = await names.numbers(asked)

    async def answer(name: Name) -> Answer | ApiError:
        if name not in numbers:
            return UnknownUser.named(name)
        request = RecommendationRequest(user_id=numbers[name], limit=batch.limit, filters=batch.filters)
        async with places:
            try:
                return await recommender.recommend(request, uuid4(), deadline=deadline())
            except ApiError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(name)) for name in asked]
    found = [task.result() for task in tasks]
    shown = {
        item.user_id
        for name, one in zip(asked, found, strict=True)
        if isinstance(name, str) and isinstance(one, Answer)
        for item in one.items
    }
    texts = await names.names(shown)
    return AllAnswered([_told(name, one, texts) for name, one in zip(asked, found, strict=True)], request_id)


def _told(name: Name, found: Answer | ApiError, texts: Mapping[int, str]) -> OneAnswered:
    if isinstance(found, ApiError):
        details = [ErrorDetail(**detail) for detail in found.details]
        return OneAnswered(name, None, ErrorBody(code=found.code, message=found.message, details=details))
    return OneAnswered(name, renamed(found, texts) if isinstance(name, str) else found, None)
