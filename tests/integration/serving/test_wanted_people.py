"""What filters ask of attributes, as Postgres judges it: by what is stored, whatever else stands there."""

import asyncio
import json
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from infra.db import postgres
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.api.recommendation_models import Filters
from serving.people.people_store import PostgresPeople
from serving.people.wanted import wishes_of
from tests.serving_fakes import closed_breaker
from tests.serving_world import START, insert_person

ATTRIBUTES: dict[int, dict[str, Any]] = {
    2: {"height_cm": 180},
    4: {"height_cm": 180.5, "smoker": True},
    6: {"height_cm": "181", "smoker": False},
    8: {"height_cm": [181], "smoker": 0},
    10: {"height_cm": None, "smoker": "yes", "city": ["é"]},
    12: {"city": 'Gh"ent\\'},
    14: {"height_cm": 0.1, "smoker": 1, "city": "é"},
    16: {"school_id": 2**53},
    18: {"school_id": 2**53 + 1},
}


@pytest.mark.parametrize(
    ("wanted", "fitting"),
    [
        ({"height_cm": {"gte": 180}}, [2, 4]),
        ({"height_cm": {"lte": 180.0}}, [2, 14]),
        ({"height_cm": {"gte": 0.1, "lte": 0.1}}, [14]),
        ({"height_cm": {"in": [180, 0.1]}}, [2, 14]),
        ({"school_id": {"in": [2**53 + 1, 0.5]}}, [18]),
        ({"school_id": {"gte": 2**53 + 1}}, [18]),
        ({"school_id": {"lte": 2**53}}, [16]),
        ({"smoker": {"in": [1]}}, [4, 14]),
        ({"smoker": {"in": [0]}}, [6, 8]),
        ({"smoker": {"gte": 0}, "height_cm": {"gte": 100}}, [4]),
        ({"smoker": {"is": True}}, [4]),
        ({"smoker": {"is": False}}, [6]),
        ({"smoker": {"in": ["yes", "no"]}}, [10]),
        ({"height_cm": {"in": ["181"]}}, [6]),
        ({"height_cm": {"in": ["180"]}, "smoker": {"is": False}}, []),
        ({"city": {"in": ['Gh"ent\\', "é"]}}, [12, 14]),
        ({"o'clock\"; --": {"gte": 0}}, []),
    ],
)
@pytest.mark.parametrize("interests", [None, ["hiking", "go"]])
def test_who_is_drawn_and_who_may_be_shown_has_what_is_asked_for(
    connection: psycopg.Connection[Any],
    endpoints: Endpoints,
    settings: Settings,
    wanted: dict[str, Any],
    fitting: list[int],
    interests: list[str] | None,
) -> None:
    insert_person(connection, 1)
    for user_id, attributes in ATTRIBUTES.items():
        insert_person(connection, user_id, attributes=Jsonb(attributes))
    connection.commit()
    wishes = wishes_of(Filters.model_validate_json(json.dumps({"attributes": wanted})))
    asked = np.array(list(ATTRIBUTES), dtype=np.int64)

    async def both() -> tuple[list[int], list[int]]:
        async with postgres.open_pool(endpoints.database_url, settings.postgres) as pool:
            people = PostgresPeople(pool, closed_breaker())
            standing = await people.standing(
                1, asked, since=START, interests=interests, attributes=wishes, timeout_s=5.0
            )
            drawn = await people.some_visible(0.5, 50, 5.0, wishes)
        return standing.allowed.tolist(), sorted(drawn.rows.columns["user_id"])

    assert asyncio.run(both()) == (fitting, fitting)
