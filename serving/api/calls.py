"""Every call of the API, once: the request checks find it here, and the OpenAPI document describes it."""

from typing import Final

from serving.api.list_calls import SIMILAR, SimilarQuery
from serving.api.models import (
    INTERACTIONS,
    INTERACTIONS_BATCH,
    InteractionBatch,
    InteractionRequest,
    NamedInteractionRequest,
)
from serving.api.recommendation_models import (
    MAX_EXCLUDED,
    RECOMMENDATIONS,
    RECOMMENDATIONS_BATCH,
    NamedRecommendationBatch,
    NamedRecommendationRequest,
    RecommendationBatch,
    RecommendationRequest,
)
from serving.api.routing import ApiRoute
from serving.people.relations import LIKES_RECEIVED, MATCHES, PageQuery
from serving.profiles.erasure_models import ERASURE
from serving.profiles.guests import GUESTS, GuestRequest, NamedGuestRequest
from serving.profiles.models import HIDE, PEOPLE_BATCH, PERSON, SHOW, PeopleBatch, Profile

RECOMMEND: Final = "recommend"
RECOMMEND_ALL: Final = "recommend_all"
STORE_INTERACTION: Final = "store_interaction"
ROUTES: Final = (
    ApiRoute(
        "POST",
        RECOMMENDATIONS,
        RECOMMEND,
        RecommendationRequest,
        named=NamedRecommendationRequest,
        ids=("exclude", MAX_EXCLUDED),
    ),
    ApiRoute(
        "POST", RECOMMENDATIONS_BATCH, RECOMMEND_ALL, RecommendationBatch, batch=True, named=NamedRecommendationBatch
    ),
    ApiRoute(
        "POST",
        GUESTS,
        "recommend_to_guest",
        GuestRequest,
        large=True,  # three lists of a thousand ids
        named=NamedGuestRequest,
        ids=("exclude", MAX_EXCLUDED),
    ),
    ApiRoute("POST", INTERACTIONS, STORE_INTERACTION, InteractionRequest, named=NamedInteractionRequest),
    ApiRoute("POST", INTERACTIONS_BATCH, "store_interactions", InteractionBatch, batch=True),
    ApiRoute("GET", PERSON, "get_person"),
    ApiRoute("PUT", PERSON, "put_person", Profile),
    ApiRoute("PATCH", PERSON, "patch_person", Profile),
    ApiRoute("DELETE", PERSON, "erase_person"),
    ApiRoute("GET", ERASURE, "get_erasure"),
    ApiRoute("POST", HIDE, "hide_person"),
    ApiRoute("POST", SHOW, "show_person"),
    ApiRoute("GET", SIMILAR, "list_similar", query=SimilarQuery),
    ApiRoute("GET", MATCHES, "list_matches", query=PageQuery),
    ApiRoute("GET", LIKES_RECEIVED, "list_likes", query=PageQuery),
    ApiRoute("POST", PEOPLE_BATCH, "store_people", PeopleBatch, batch=True),
)
