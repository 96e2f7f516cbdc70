"""Answers many people in one call: each by the whole path of a single call, a few of them at once.

What they ask Postgres and Redis for in the same turn of the event loop is read together; one body is parsed for all.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from serving.answers import Answer
from serving.api_models import ErrorBody, ErrorDetail, RecommendationBatch, RecommendationRequest
from serving.errors import ApiError
from serving.recommend import Recommender
from serving.resilience.deadline import Deadline

AT_ONCE: Final = 8
"""People of one batch who are answered at once; the other calls of the worker go on beside them."""


@dataclass(frozen=True)
class OneAnswered:
    """What `api_models.RecommendationResult` describes."""

    user_id: int
    answer: Answer | None
    error: ErrorBody | None


@dataclass(frozen=True)
class AllAnswered:
    """What `api_models.RecommendationResults` describes."""

    results: list[OneAnswered]
    request_id: str


async def recommend_all(
    recommender: Recommender, batch: RecommendationBatch, request_id: str, deadline: Callable[[], Deadline]
) -> AllAnswered:
    """Return an answer for each person; `deadline` gives the one of an answer that begins now."""
    places = asyncio.Semaphore(AT_ONCE)

    async def answer(user_id: int) -> OneAnswered:
        request = RecommendationRequest(user_id=user_id, limit=batch.limit, filters=batch.filters)
        async with places:
            try:
                return OneAnswered(user_id, await recommender.recommend(request, uuid4(), deadline=deadline()), None)
            except ApiError as error:
                details = [ErrorDetail(**detail) for detail in error.details]
                return OneAnswered(user_id, None, ErrorBody(code=error.code, message=error.message, details=details))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(user_id)) for user_id in batch.user_ids]
    return AllAnswered([task.result() for task in tasks], request_id)
