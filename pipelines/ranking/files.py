"""The ranker's rows on disk: one plain array per file, so that equal rows give equal bytes."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.files import sha256_of


@dataclass(frozen=True)
class RankingRows:
    """features float32[n, k], labels and weights float32[n], at_us, requester_ids and candidate_ids int64[n].

    `kind` int8[n] is a `RowKind`; `late` bool[n] marks rows of the window that is held out until all is judged.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    at_us: npt.NDArray[np.int64]
    requester_ids: npt.NDArray[np.int64]
    candidate_ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    kind: npt.NDArray[np.int8]
    late: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.bool_]) -> "RankingRows":
        """Return some of the rows."""
        return RankingRows(**{name: values[rows] for name, values in asdict(self).items()})


def save_rows(directory: Path, rows: RankingRows) -> dict[str, str]:
    """Write the arrays and return the sha256 of each file by name."""
    directory.mkdir(parents=True)
    digests = {}
    for name, values in asdict(rows).items():
        path = directory / f"{name}.npy"
        np.save(path, np.ascontiguousarray(values), allow_pickle=False)
        digests[path.name] = sha256_of(path)
    return digests


def load_rows(directory: Path) -> RankingRows:
    """Read what `save_rows` wrote."""
    names = RankingRows.__dataclass_fields__
    return RankingRows(**{name: np.load(directory / f"{name}.npy", allow_pickle=False) for name in names})
