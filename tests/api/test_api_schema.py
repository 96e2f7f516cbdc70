"""Whatever the OpenAPI document allows or forbids, the service does: schemathesis with all its checks."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from serving.api.openapi import document
from tests.api.conftest import Served

# JSON Schema cannot say that two ids differ, that a time is not in the future or that a range is in order: such
# requests are valid to schemathesis and rightly refused with 422. Their own tests are beside the models.
# A cursor may be longer than the bodies that this app takes.
FITTING = ["2xx", "404", "409", "413", "422"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": FITTING},
            # A text that is too long may make the body too large, which is found first.
            "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "415", "422"]},
        },
        # Free values may hold text that is no JSON for us: NUL characters and halves of characters.
        "operations": [
            {
                "include-path-regex": "^/v1/(people|interactions:batch|recommendations)",
                # Likes may be told to nobody: 403.
                "checks": {"positive_data_acceptance": {"expected-statuses": [*FITTING, "400", "403"]}},
            }
        ],
    }
)
schema = schemathesis.openapi.from_dict(document(), config=CONFIG)


@schema.parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)
def test_the_service_keeps_to_its_document(case: Any, town: Served) -> None:
    if any("unknown-property" in name.lower() for name in case.headers or {}):
        return  # a header that the document does not name: HTTP lets anybody add some, so taking it is no fault
    case.call_and_validate(base_url=str(town.client.base_url))


def test_the_document_has_examples_for_both_calls(town: Served) -> None:
    served = town.client.get("/docs.json").json()
    assert served == document()
    for path in ("/v1/recommendations", "/v1/interactions"):
        call = served["paths"][path]["post"]
        assert call["requestBody"]["content"]["application/json"]["examples"]
        assert all("example" in reply["content"]["application/json"] for reply in call["responses"].values())
