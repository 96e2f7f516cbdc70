"""A synthetic world as tables that tests can look at."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_repo.kinds import KINDS
from pipelines.ingest.world.synthetic import World


def users_frame(world: World) -> pd.DataFrame:
    """Return all people as the columns of `duet.users`; lists as arrays, `attributes` as JSON text."""
    return world.users_table().to_pandas()


def interaction_chunks(world: World) -> Iterator[pa.Table]:
    """Yield Arrow tables of actor_id, target_id, kind (dictionary), occurred_at; each sorted by time."""
    kinds = pa.array(KINDS)
    for events in world.event_chunks():
        yield pa.table(
            {
                "actor_id": pa.array(events.actor + 1),
                "target_id": pa.array(events.target + 1),
                "kind": pa.DictionaryArray.from_arrays(pa.array(events.kind.astype(np.int8)), kinds),
                "occurred_at": pa.array(events.at_s * 1_000_000).cast(pa.timestamp("us", "UTC")),
            }
        )
