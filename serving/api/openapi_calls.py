"""What the OpenAPI document says of each call, by operation."""

from typing import Final

from serving.api.calls import RECOMMEND, RECOMMEND_ALL, STORE_INTERACTION
from serving.api.models import InteractionResults, StoredInteraction
from serving.api.openapi_parts import Said, json_answer
from serving.api.recommendation_models import RecommendationResults, Recommendations
from serving.errors import EventConflict, LikesPrivate, StorageUnavailable, UnknownUser, VariantForbidden
from serving.experiments.assignment import Variant
from serving.people.relations import LikesReceived, Matches
from serving.profiles.erasure_models import ErasureReport
from serving.profiles.models import PROFILE_EXAMPLE, PeopleResults, Person, StoredPerson
from serving.resilience.deadline import HEADER, SHORTEST_MS

_RECOMMENDATIONS: Final = {
    "items": [
        {
            "user_id": 7,
            "position": 1,
            "score": 0.41,
            "p_like": 0.72,
            "p_liked_back": 0.57,
            "sources": ["retrieval", "content"],
            "explored": False,
            "explanation": None,
        }
    ],
    "release": "e3-i3-r2",
    "variant": "champion",
    "experiment": None,
    "cached": False,
    "order": "ranker",
    "level": 1,
    "level_name": "full",
    "reason": None,
    "message": None,
    "next": "BwAAAAAAAAA=",
    "degraded": [],
    "timings_ms": {"eligibility": 0.9, "retrieval": 0.7, "ranking": 1.6, "safety": 0.8, "total": 4.4},
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_ALL: Final = {
    "results": [
        {"user_id": 42, "answer": _RECOMMENDATIONS, "error": None},
        {
            "user_id": 43,
            "answer": None,
            "error": {"code": "unknown_user", "message": "Nobody has the id 43.", "details": []},
        },
    ],
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_GUEST: Final = {**_RECOMMENDATIONS, "next": None}
_SIMILAR: Final = {
    **_RECOMMENDATIONS,
    "items": [
        {
            "user_id": 9,
            "position": 1,
            "score": 0.93,
            "p_like": None,
            "p_liked_back": None,
            "sources": ["retrieval", "item_knn"],
            "explored": False,
            "explanation": None,
        }
    ],
    "order": "similarity",
    "next": None,
    "timings_ms": {"eligibility": 1.6, "retrieval": 0.9, "ranking": 0.2, "safety": 0.8, "total": 3.9},
}
_STORED: Final = {
    "event_id": "8f14e45f-ceea-467f-a0e6-0242ac120002",
    "status": "stored",
    "matched": False,
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_EVENTS: Final = {
    "results": [
        {
            "index": 0,
            "event_id": "8f14e45f-ceea-467f-a0e6-0242ac120002",
            "status": "stored",
            "matched": True,
            "error": None,
        }
    ],
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_MATCHES: Final = {
    "items": [{"user_id": 7, "matched_at": "2026-01-31T12:00:00Z"}],
    "next": None,
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_LIKES: Final = {
    "items": [{"user_id": 7, "liked_at": "2026-01-31T12:00:00Z"}],
    "next": None,
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_STORED_PERSON: Final = {"user_id": 42, "status": "created", "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003"}
_PEOPLE: Final = {
    "results": [
        {"index": 0, "user_id": 42, "status": "created", "error": None},
        {
            "index": 1,
            "user_id": 43,
            "status": "refused",
            "error": {"code": "out_of_range", "field": "age_min", "message": "must be a whole number from 18 to 120"},
        },
    ],
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_PERSON: Final = {
    "user_id": 42,
    **PROFILE_EXAMPLE,
    "bio": None,
    "visible": True,
    "created_at": "2026-01-31T12:00:00Z",
    "last_active_at": None,
    "updated_at": "2026-01-31T12:00:00Z",
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_ERASURE: Final = {
    "erasure_id": 3,
    "person": "9f0f895fb98b915f",
    "status": "running",
    "way": "api",
    "actor": "website",
    "requested_at": "2026-01-31T12:00:00Z",
    "rows_erased_at": "2026-01-31T12:00:00.1Z",
    "finished_at": None,
    "places": [
        {"place": "duet.interactions", "before": 212, "after": 0, "looked_at": "2026-01-31T12:00:00.1Z"},
        {"place": "duet.users", "before": 1, "after": 0, "looked_at": "2026-01-31T12:00:00.1Z"},
    ],
    "models": [{"model": "duet-embedding", "version": 3, "stage": "Production"}],
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_DEADLINE: Final = {
    "name": HEADER.decode().title(),
    "in": "header",
    "required": False,
    "description": "Milliseconds after which you want what could be had, with its level; at most the time that the "
    "service gives a request.",
    "schema": {"type": "integer", "minimum": SHORTEST_MS, "maximum": 10_000},
}
_VARIANT: Final = {
    "name": "X-Duet-Variant",
    "in": "header",
    "required": False,
    "description": "The arm of the experiment that is to answer; for keys of testers.",
    "schema": {"type": "string", "enum": [variant.value for variant in Variant]},
}
_FRESH: Final = "Durable when it is answered. The person's own next answer counts with it, and so does every last check"
_OTHERS: Final = "; others find somebody new, or by a new profile, once the people in memory are read again (5 s)."

SAID: Final = {
    RECOMMEND: Said(
        "recommendations",
        "Recommend people to a person",
        {"200": json_answer(Recommendations, "The ranked list, and how it was made.", _RECOMMENDATIONS)},
        (UnknownUser, VariantForbidden),
        (_DEADLINE, _VARIANT),
    ),
    RECOMMEND_ALL: Said(
        "recommendations",
        "Recommend people to up to 200 people",
        {"200": json_answer(RecommendationResults, "An answer for each, in the order of the request.", _ALL)},
        (),
        (_DEADLINE,),
        description="Each answer is what a call of its own would get; the deadline is that of one answer.",
    ),
    "recommend_to_guest": Said(
        "recommendations",
        "Recommend people to somebody who has no id yet",
        {"200": json_answer(Recommendations, "The ranked list, and how it was made.", _GUEST)},
        (StorageUnavailable,),
        (_DEADLINE,),
        description="By the profile in the request and by whom they liked and passed on so far; their wishes count, "
        "and those of others about them. Nothing is stored, kept or logged as shown.",
    ),
    "list_similar": Said(
        "recommendations",
        "List people similar to somebody",
        {"200": json_answer(Recommendations, "The most similar first; `score` is the similarity.", _SIMILAR)},
        (UnknownUser, StorageUnavailable),
        (_DEADLINE,),
        description="Similar is who is chosen by the same people: the cosine of the factors of the release that serves "
        "(level 1), else how close the profiles are (level 2); at random nobody is similar, so there is no level 3. "
        "Only people whom the requester may be shown are in the list; a person whom they may not see is unknown here. "
        "Nothing is logged as shown.",
    ),
    STORE_INTERACTION: Said(
        "interactions",
        "Store what one person did about another",
        {
            "201": json_answer(StoredInteraction, "Stored now; durable.", _STORED),
            "200": json_answer(StoredInteraction, "The event id had been stored before.", _STORED),
        },
        (UnknownUser, EventConflict, StorageUnavailable),
    ),
    "store_interactions": Said(
        "interactions",
        "Store up to 1,000 interactions",
        {"200": json_answer(InteractionResults, "What became of each, in the order of the request.", _EVENTS)},
        (StorageUnavailable,),
        description="Each by the rules of a single one, once per `event_id`; those of one pair in their order.",
    ),
    "list_matches": Said(
        "people",
        "List somebody's matches",
        {"200": json_answer(Matches, "A page, newest first; without who is hidden.", _MATCHES)},
        (UnknownUser, StorageUnavailable),
    ),
    "list_likes": Said(
        "people",
        "List whose likes wait for somebody's answer",
        {"200": json_answer(LikesReceived, "A page, newest first; without who is hidden or separated.", _LIKES)},
        (UnknownUser, LikesPrivate, StorageUnavailable),
        description="Only where `DUET_RANKING__PENDING_LIKES` lets likes be told.",
    ),
    "get_person": Said(
        "people",
        "Read a person",
        {"200": json_answer(Person, "The person as they are stored.", _PERSON)},
        (UnknownUser, StorageUnavailable),
    ),
    "put_person": Said(
        "people",
        "Create a person, or replace what is known of them",
        {
            "201": json_answer(StoredPerson, "Created.", _STORED_PERSON),
            "200": json_answer(StoredPerson, "Replaced.", {**_STORED_PERSON, "status": "updated"}),
        },
        (StorageUnavailable,),
        description="What is not sent takes its default; whether they are visible, and their times, stay. "
        f"{_FRESH}{_OTHERS}",
    ),
    "patch_person": Said(
        "people",
        "Change what is sent of a person",
        {"200": json_answer(StoredPerson, "Changed.", {**_STORED_PERSON, "status": "updated"})},
        (UnknownUser, StorageUnavailable),
        description=f"Null takes a value away; attributes are merged by name. {_FRESH}{_OTHERS}",
    ),
    "erase_person": Said(
        "people",
        "Erase a person from everywhere",
        {
            "202": json_answer(ErasureReport, "Begun: they are in no answer any more.", _ERASURE),
            "200": json_answer(
                ErasureReport,
                "They were erased before, and nothing is left.",
                {**_ERASURE, "status": "finished", "finished_at": "2026-01-31T12:14:00Z"},
            ),
        },
        (UnknownUser, StorageUnavailable),
        description="Their profile and all interactions of and about them are gone when it is answered; the pipelines "
        "empty every other place within half an hour, and the report says what was found in each. Whoever is stored "
        "under the same id later is a new person.",
    ),
    "get_erasure": Said(
        "people",
        "Read what became of an erasure",
        {"200": json_answer(ErasureReport, "The newest erasure of whoever had this id.", _ERASURE)},
        (UnknownUser, StorageUnavailable),
    ),
    "hide_person": Said(
        "people",
        "Show a person to nobody",
        {"200": json_answer(StoredPerson, "Hidden.", {**_STORED_PERSON, "status": "updated"})},
        (UnknownUser, StorageUnavailable),
        description="From the next answer on, whoever asks.",
    ),
    "show_person": Said(
        "people",
        "Let a person be shown to others",
        {"200": json_answer(StoredPerson, "May be shown.", {**_STORED_PERSON, "status": "updated"})},
        (UnknownUser, StorageUnavailable),
    ),
    "store_people": Said(
        "people",
        "Create or change up to 1,000 people",
        {"200": json_answer(PeopleResults, "What became of each, in the order of the request.", _PEOPLE)},
        (StorageUnavailable,),
        description="By the rules of an import: each is created, or changed in what is sent of them, or refused alone. "
        f"{_FRESH}{_OTHERS}",
    ),
}
