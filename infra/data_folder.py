"""The data folder before anybody writes into it: it is there and writable, or one sentence says what is in the way."""

import os
from pathlib import Path

from infra.errors import ConfigurationError

_ADVICE = "give another with `--data-dir` or DUET_DATA_DIR"


def require_data_folder(folder: Path) -> None:
    """Make the folder where it is missing; raises ConfigurationError when it cannot be made or written to."""
    in_the_way = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    if in_the_way is not None:
        raise ConfigurationError(
            f"The data folder `{folder}` cannot be made: `{in_the_way}` is a file and no folder; {_ADVICE}."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "its parent is not writable" if isinstance(error, PermissionError) else (error.strerror or str(error))
        raise ConfigurationError(f"The data folder `{folder}` cannot be made: {reason}; {_ADVICE}.") from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigurationError(f"The data folder `{folder}` is not writable for this user; {_ADVICE}.")
