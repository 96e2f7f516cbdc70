"""Ask the generated world itself, where the data came from one: the oracle of the evaluation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from psycopg import Connection

    from pipelines.evaluation.oracle import LikeProbability
    from pipelines.ingest.world.synthetic import World

_LAST_IMPORT = """
    SELECT kind, parameters FROM duet.imports WHERE finished_at IS NOT NULL ORDER BY started_at DESC LIMIT 1
"""


def world_of_last_import(connection: "Connection[Any]", user_ids: "npt.NDArray[np.int64]") -> "World | None":
    """Return the generated world, of either kind; None unless the last import generated all of these people."""
    found = connection.execute(_LAST_IMPORT).fetchone()
    if found is None or found[0] != "synthetic":
        return None
    from pipelines.ingest.world.synthetic import World

    world = World.generate(**found[1])
    if user_ids.size and (int(user_ids.min()) < 1 or int(user_ids.max()) > int(world.user_ids[-1])):
        return None
    return world


def truth_of_last_import(connection: "Connection[Any]", user_ids: "npt.NDArray[np.int64]") -> "LikeProbability | None":
    """Return the true like probability at the end of the window by user ids; None where no world was generated."""
    world = world_of_last_import(connection, user_ids)
    return None if world is None else world.like_probability
