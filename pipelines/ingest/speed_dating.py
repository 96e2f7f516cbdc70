"""Import the Columbia speed-dating experiment: who met whom in 21 evenings, and what both decided.

Only what a person said *before* the evening describes them; every column filled in at or after a meeting is outcome
and is never read, except the decision itself, which becomes a like or a pass.

The synthetic clock: evening (wave) `w` begins 28 days after the one before it, wave 1 on FIRST_EVENING; the meeting
with `order` k takes place on day k of its evening at 20:00 UTC, both decisions at once. So what earlier partners
decided can feed the features of later meetings, and nothing flows back. In seven waves the two sides disagree on the
order; there the side whose order lets nobody be in two meetings at once is believed.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa

from feature_repo.contract.faults import UNKNOWN, Faults
from infra.clock import Clock
from pipelines.ingest.columns.attributes import NumericColumns, json_objects
from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.loading import load
from pipelines.ingest.loading.frames import INTERACTIONS, PEOPLE, event_ids
from pipelines.ingest.loading.quarantine import Quarantine
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.loading.transaction import Progress, importing, no_progress

FIRST_EVENING = datetime(2024, 1, 1, 20, tzinfo=UTC)
DAYS_BETWEEN_EVENINGS = 28
LIKED_AT_OR_ABOVE = 7
INTERESTS = (
    "sports", "tvsports", "exercise", "dining", "museums", "art", "hiking", "gaming", "clubbing", "reading", "tv",
    "theater", "movies", "concerts", "music", "shopping", "yoga",
)  # fmt: skip
# Said before the evening: shares of what they look for, ratings of themselves, facts and habits. 20 of 24 slots.
STATED_SHARES = ("attr1_1", "sinc1_1", "intel1_1", "fun1_1", "amb1_1", "shar1_1")
SELF_RATINGS = ("attr3_1", "sinc3_1", "intel3_1", "fun3_1", "amb3_1")
FACTS = ("age", "race", "field_cd", "goal", "date", "go_out", "career_c", "imprace", "imprelig")
_TRAITS = ("attractive", "sincere", "intelligent", "fun", "ambitious", "shared")
_ATTRIBUTE_NAMES = {
    **{source: f"wants_{trait}" for source, trait in zip(STATED_SHARES, _TRAITS, strict=True)},
    **{source: f"self_{trait}" for source, trait in zip(SELF_RATINGS, _TRAITS[:5], strict=True)},
    "age": "age_at_event",
    "race": "race",
    "field_cd": "field_code",
    "goal": "goal",
    "date": "dating_frequency",
    "go_out": "going_out_frequency",
    "career_c": "career_code",
    "imprace": "importance_of_race",
    "imprelig": "importance_of_religion",
}
_KEYS = ("iid", "id", "gender", "wave", "order", "partner", "pid", "dec")
_COLUMNS = (*_KEYS, *FACTS, *INTERESTS, *STATED_SHARES, *SELF_RATINGS)


def import_speed_dating(
    connection: psycopg.Connection[Any],
    path: Path,
    *,
    data_dir: Path,
    clock: Clock,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import the experiment's file; raises RefusedFile when it is not that file, and then writes nothing."""
    meetings = read_meetings(path)
    people = people_table(meetings)
    interactions, unknown = interactions_table(meetings)
    now = clock.now()
    parameters = {"first_evening": FIRST_EVENING.isoformat(), "days_between_evenings": DAYS_BETWEEN_EVENINGS}
    with importing(
        connection, kind="speed-dating", source=path.name, parameters=parameters, data_dir=data_dir, clock=clock
    ) as report:
        report.people.read, report.interactions.read = people.num_rows, len(meetings)
        load.stage_people(connection, people)
        load.merge_people(
            connection, [name for name in PEOPLE.names if name in people.column_names], now, report.people
        )
        _quarantine(connection, report, path.name, report.people.quarantined).take_staged()
        load.claim_slots(connection, list(_ATTRIBUTE_NAMES.values()))
        progress("people", 1, 1)
        quarantine = _quarantine(connection, report, path.name, report.interactions.quarantined)
        raw = pa.Table.from_pandas(meetings[[*_KEYS]], preserve_index=False)
        reason = f"{UNKNOWN}: the partner has no row in the file"
        quarantine.add_rows(raw, unknown, meetings["line"].to_numpy(), [reason] * len(unknown))
        load.stage_interactions(connection, interactions)
        load.merge_interactions(connection, report.interactions)
        quarantine.take_staged()
        progress("interactions", 1, 1)
    return report


def _quarantine(
    connection: psycopg.Connection[Any], report: ImportReport, file: str, tally: Counter[str]
) -> Quarantine:
    return Quarantine(connection, report.import_id, file, tally)


def read_meetings(path: Path) -> pd.DataFrame:
    """Return the columns that may be used, one row per decision, and `line`; raises RefusedFile."""
    try:
        frame = pd.read_csv(path, encoding="latin-1", usecols=list(_COLUMNS), thousands=",")
    except FileNotFoundError as error:
        raise RefusedFile(f"There is no file `{path}`.") from error
    except (ValueError, OSError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise RefusedFile(f"`{path.name}` is not the speed-dating experiment: {reason}.") from error
    wrong = [name for name in _COLUMNS if not pd.api.types.is_numeric_dtype(frame[name])]
    keys = [name for name in ("iid", "gender", "wave", "order", "partner", "dec") if frame[name].isna().any()]
    if wrong or keys or frame.empty:
        what = f"`{(wrong or keys)[0]}` holds text or gaps" if wrong or keys else "it has no rows"
        raise RefusedFile(f"`{path.name}` is not the speed-dating experiment: {what}.")
    # Free-text columns of this file hold no line breaks, so a row is a line.
    frame["line"] = np.arange(2, len(frame) + 2, dtype=np.int64)
    return frame


def people_table(meetings: pd.DataFrame) -> pa.Table:
    """Return one row per person, from what they said before their evening."""
    people = meetings.drop_duplicates("iid").sort_values("iid")
    woman = people["gender"].to_numpy() == 0
    evening = _evenings(people["wave"])
    born = (evening - pd.to_timedelta(np.ceil(people["age"].fillna(0) * 365.2425) + 182, unit="D")).dt.date
    shares = people[list(STATED_SHARES)]
    # Waves 6 to 9 rated each trait 1 to 10 where the others split 100 points: shares make them one scale.
    scaled = shares.div(shares.sum(axis=1, min_count=1).where(lambda total: total > 0), axis=0) * 100
    attributes = pd.concat([scaled.round(2), people[[*SELF_RATINGS, *FACTS]]], axis=1).rename(columns=_ATTRIBUTE_NAMES)
    faults = Faults(len(people))
    columns = {name: pa.Array.from_pandas(attributes[name]) for name in _ATTRIBUTE_NAMES.values()}
    liked = people[list(INTERESTS)] >= LIKED_AT_OR_ABOVE
    names = np.array(INTERESTS)
    interests = [names[row].tolist() for row in liked.to_numpy()]
    return pa.table(
        {
            "user_id": pa.array(people["iid"].to_numpy(), pa.int64()),
            "birth_date": pa.array(np.where(people["age"].notna(), born, None), pa.date32()),
            "gender": pa.array(np.where(woman, "woman", "man")),
            "seeking": pa.array([["man"] if is_woman else ["woman"] for is_woman in woman], pa.list_(pa.string())),
            "interests": pa.array(interests, pa.list_(pa.string())),
            "created_at": pa.array(evening, pa.timestamp("us", "UTC")),
            "attributes": json_objects(columns, len(people), faults, NumericColumns()),
            "line": pa.array(people["line"].to_numpy()),
        }
    )


def interactions_table(meetings: pd.DataFrame) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return one interaction per decision about a known partner, and the rows whose partner is not in the file."""
    partners = _partners(meetings)
    known = partners.notna().to_numpy()
    met = meetings[known].assign(pid=partners[known].astype(np.int64))
    at = _evenings(met["wave"]) + pd.to_timedelta(believed_order(met), unit="D")
    arrays = {
        "actor_id": pa.array(met["iid"].to_numpy(), pa.int64()),
        "target_id": pa.array(met["pid"].to_numpy(), pa.int64()),
        "kind": pa.array(np.where(met["dec"].to_numpy() == 1, "like", "pass")),
        "occurred_at": pa.Array.from_pandas(at, type=pa.timestamp("us", "UTC")),
        "line": pa.array(met["line"].to_numpy()),
    }
    ids = event_ids(arrays["actor_id"], arrays["target_id"], arrays["kind"], arrays["occurred_at"])
    table = pa.table({"event_id": ids, **arrays}).select(INTERACTIONS.names)
    return table, np.flatnonzero(~known)


def _partners(meetings: pd.DataFrame) -> pd.Series[float]:
    """Return the partner's `iid`: `pid`, or else the person of the other gender with that number in the wave."""
    people = meetings.drop_duplicates("iid")
    numbered = people.assign(gender=1 - people["gender"])[["wave", "gender", "id", "iid"]]
    numbered = numbered.rename(columns={"id": "partner", "iid": "found"}).dropna()
    found = meetings[["wave", "gender", "partner"]].merge(numbered, how="left", on=["wave", "gender", "partner"])
    partners = meetings["pid"].fillna(pd.Series(found["found"].to_numpy(), index=meetings.index))
    return partners.where(partners.isin(people["iid"]))


def believed_order(met: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return one `order` per meeting, the same for both of its rows, by the side with fewer clashes in the wave."""
    woman = met["gender"] == 0
    frame = pd.DataFrame(
        {
            "wave": met["wave"],
            "woman": met["iid"].where(woman, met["pid"]),
            "man": met["pid"].where(woman, met["iid"]),
            "order": met["order"],
        }
    )
    hers, his = frame[woman], frame[~woman]
    clashes = pd.DataFrame(
        {
            "hers": hers.duplicated(["man", "order"]).groupby(hers["wave"]).sum(),
            "his": his.duplicated(["woman", "order"]).groupby(his["wave"]).sum(),
        }
    ).fillna(0)
    believes_her = frame["wave"].map(clashes["hers"] <= clashes["his"])
    chosen = pd.concat([hers[believes_her[hers.index]], his[~believes_her[his.index]]])
    by_meeting = chosen.set_index(["woman", "man"])["order"]
    by_meeting = by_meeting[~by_meeting.index.duplicated()]
    wanted = pd.MultiIndex.from_frame(frame[["woman", "man"]])
    believed = by_meeting.reindex(wanted).to_numpy(dtype=float)
    # A meeting that only the other side reported keeps that side's order.
    return np.where(np.isnan(believed), frame["order"].to_numpy(), believed).astype(np.int64)


def _evenings(wave: pd.Series[int]) -> pd.Series[pd.Timestamp]:
    start = pd.Timestamp(FIRST_EVENING)
    return start + pd.to_timedelta((wave.astype(np.int64) - 1) * DAYS_BETWEEN_EVENINGS, unit="D")
