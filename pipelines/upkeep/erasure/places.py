"""Every place beside a person's own rows that holds personal data, and what empties it.

`infra.db.personal_data` declares the tables; Redis and the files are named here. The operator's guide lists the same.
"""

from functools import partial
from typing import Final

from infra.db.personal_data import PERSONAL
from pipelines.upkeep.erasure import files, online, tables, waiting
from pipelines.upkeep.erasure.found import Look
from pipelines.upkeep.erasure.models import RESULTS

PLACES: Final[dict[str, Look]] = {
    **{table.place: partial(tables.erase_table, table=table) for table in PERSONAL if table.goes == "later"},
    "duet.quarantine": tables.erase_quarantine,
    "quarantine files": files.erase_quarantine_files,
    RESULTS: files.erase_results,
    "online features": online.erase_features,
    "kept answers in Redis": online.erase_kept_answers,
    "kept answers in memory": waiting.wait_for_kept_answers,
    "snapshots of serving": waiting.wait_for_snapshots,
}
"""In this order: what others are made from comes first."""

LAST: Final[dict[str, Look]] = {
    table.place: partial(tables.erase_table, table=table) for table in PERSONAL if table.goes == "last"
}
"""What others learn of the erasure from: emptied once everything else is."""
