"""Looks whether people have lost what was brought online of them: Redis evicts keys, or fails over to an older copy.

A row of the offline table that was written and valid by the time the store was last filled must be online, too. Whoever
lacks theirs would be served as if they had never been there, and no later filling writes a profile that did not change.
"""

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import PROFILE
from feature_repo.store import PersonReader, own_store

Int64 = NDArray[np.int64]


def lost_people(reader: PersonReader, user_ids: Int64) -> tuple[int, int]:
    """Return how many of a few people must be online, and how many of these are not; the cost is that of these people.

    Where somebody is not, the mark of the filling goes, so that whoever fills next writes everybody. Nobody must be
    online before the first filling, nor in a store of somebody else, which has no mark. Raises
    FeatureStoreUnavailable, and what Postgres raises.
    """
    from feature_repo.stores.offline import FastPostgresOfflineStore

    store, until = reader.store, reader.filled_until()
    online = own_store(store)
    if online is None or until is None:
        return 0, 0
    view = store.get_feature_view(PROFILE.name)
    due = FastPostgresOfflineStore.written_until(store.config, view, until, user_ids)
    if not len(due):
        return 0, 0
    [(_, micros)] = online.read_packed(store.config, [(view, False)], due)
    lost = int(np.count_nonzero(micros < 0))
    if lost:
        online.forget_filling(store.config)
    return len(due), lost
