"""The online features of people: what is said where they cannot be read."""

from typing import NoReturn

import pytest

from feature_repo.errors import CatalogueNotApplied
from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.errors import FeaturesUnavailable
from serving.people.stored_people import StoredPeople


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CatalogueNotApplied("Run `duet train --job materialize_features`."), "Run `duet train --job materialize_feat"),
        (OSError("redis://:secret@host"), "cannot be read: OSError.$"),
    ],
)
def test_what_a_person_can_do_about_unreadable_features_is_said_and_no_address(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def opened(_: StoredPeople) -> NoReturn:
        raise error

    monkeypatch.setattr(StoredPeople, "_opened", opened)
    nowhere = Endpoints(database_url="", redis_url="")
    with pytest.raises(FeaturesUnavailable, match=told):
        StoredPeople(settings, nowhere, SystemClock()).open()
