"""Where personal data lies in Postgres: every table of Duet's own schemas, and what an erasure does with it.

A test holds this list against the migrated schema: a new table must be declared here, and one that names people
by `PersonalTable`. Other stores (Redis, files) are declared in `pipelines.upkeep.erasure.places`.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class PersonalTable:
    """A table with rows that name people.

    `columns` hold their numbers. `at` is the column with the time a row is about: the rows of somebody who came back
    under the same id are later, and stay. `goes` says when its rows go: with the person's own row (`with the person`),
    in a pass of the pipelines (`later`), or last, because others learn of the deletion from them (`last`).
    """

    name: str
    columns: tuple[str, ...]
    at: str
    goes: Literal["with the person", "later", "last"] = "later"
    schema: str = "duet"

    @property
    def place(self) -> str:
        """Return `schema.table`."""
        return f"{self.schema}.{self.name}"


PERSONAL: Final = (
    PersonalTable("users", ("user_id",), "created_at", "with the person"),
    PersonalTable("interactions", ("actor_id", "target_id"), "recorded_at", "with the person"),
    PersonalTable("webhook_events", ("actor_id", "target_id"), "occurred_at"),  # went with the row already
    PersonalTable("impressions", ("user_id", "target_id"), "shown_at"),
    PersonalTable("answers", ("user_id",), "answered_at"),
    PersonalTable("user_profile", ("user_id",), "event_timestamp", schema="features"),
    PersonalTable("user_attributes", ("user_id",), "event_timestamp", schema="features"),
    PersonalTable("user_activity", ("user_id",), "event_timestamp", schema="features"),
    PersonalTable("user_reciprocity", ("user_id",), "event_timestamp", schema="features"),
    PersonalTable("deletions", ("user_id",), "deleted_at", "last"),
)
"""Tables whose rows name people by number."""

TEXTS: Final = {
    "duet.quarantine": "`row` is a refused row of an import as it was read; what is one of the person's ids names them",
    "duet.erasures": "`user_id` and `known_as` of an erasure that is not finished; then only salted hashes are left",
}
"""Tables that name people in other ways, and how."""

IMPERSONAL: Final = {
    "duet.promotions": "who moved a release: an account of the operating system, not a person of the product",
    "duet.experiments": "settings",
    "duet.experiment_events": "as `promotions`",
    "duet.guard_verdicts": "figures of arms",
    "duet.imports": "totals and the names of files",
    "duet.attribute_slots": "names of attributes",
    "duet.api_keys": "callers of the service",
    "duet.release_pins": "as `promotions`",
    "duet.serving_workers": "processes",
    "duet.measurements": "figures",
    "duet.stream_positions": "ids of entries of streams",
    "duet.impressions_daily": "totals of a day",
    "duet.answers_daily": "totals of a day",
    "duet.activity_daily": "totals of a day",
}
"""Tables without people, and what they hold."""

PERSON_COLUMNS: Final = frozenset({"user_id", "actor_id", "target_id", "person_id", "member_id", "external_id"})
"""Names of columns by which a table is known to name people."""
