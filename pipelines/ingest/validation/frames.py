"""Prepare snapshots for validation: derived columns, one-row totals, and samples of tables too large to check whole."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feature_repo.kinds import DECISIONS, LIKES

if TYPE_CHECKING:
    import pandas as pd

Facts = Mapping[str, str | int | float | bool | None]

SAMPLE_SEED = 7
SECONDS_PER_DAY = 86_400.0
DAYS_PER_YEAR = 365.2425


def sampled(frame: "pd.DataFrame", limit: int) -> "pd.DataFrame":
    """Return `frame`, or a seeded uniform sample of `limit` rows in their order where it is larger."""
    if len(frame) <= limit:
        return frame
    return frame.sample(n=limit, random_state=SAMPLE_SEED).sort_index()


def people_frame(people: "pd.DataFrame", as_of: datetime, limit: int) -> "pd.DataFrame":
    """Return the people to check with `age_years` at `as_of` and the list columns as counts."""
    import pandas as pd

    rows = sampled(people, limit)
    born_at = pd.to_datetime(rows["birth_date"], utc=True, errors="coerce")
    checked = rows.drop(columns=["seeking", "interests", "attributes", "birth_date"])
    return checked.assign(
        age_years=(as_of - born_at).dt.total_seconds() / (SECONDS_PER_DAY * DAYS_PER_YEAR),
        n_seeking=rows["seeking"].map(len),
        n_interests=rows["interests"].map(len),
    )


def interactions_frame(interactions: "pd.DataFrame", people: "pd.DataFrame", limit: int) -> "pd.DataFrame":
    """Return the interactions to check, each with whether its two people are known and are two."""
    import numpy as np

    rows = sampled(interactions, limit)
    known = np.sort(people["user_id"].to_numpy())
    return rows.assign(
        kind=rows["kind"].astype(str),
        actor_is_known=np.isin(rows["actor_id"].to_numpy(), known),
        target_is_known=np.isin(rows["target_id"].to_numpy(), known),
        is_self=rows["actor_id"].to_numpy() == rows["target_id"].to_numpy(),
    )


def people_facts(people: "pd.DataFrame") -> dict[str, Any]:
    """Count the people: what the next run is compared with."""
    return {"rows": len(people), "visible": int(people["visible"].sum())}


def interaction_facts(interactions: "pd.DataFrame", as_of: datetime) -> dict[str, Any]:
    """Count the interactions: what the next run is compared with, and how long they have been silent."""
    kinds = interactions["kind"].value_counts()
    likes, decisions = (sum(int(kinds.get(kind, 0)) for kind in some) for some in (LIKES, DECISIONS))
    newest_at = interactions["occurred_at"].max()
    return {
        "rows": len(interactions),
        "likes": likes,
        "decisions": decisions,
        "like_rate": likes / decisions if decisions else None,
        "silent_days": (as_of - newest_at).total_seconds() / SECONDS_PER_DAY,
        "oldest_at": interactions["occurred_at"].min().isoformat(),
        "newest_at": newest_at.isoformat(),
    }


def totals_frame(facts: Facts) -> "pd.DataFrame":
    """Return the totals as one row."""
    import pandas as pd

    return pd.DataFrame([{name: value for name, value in facts.items() if not isinstance(value, str)}])
