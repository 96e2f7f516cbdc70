"""The data folder before anybody uses it: it is there and this user's, or one sentence says what is in the way."""

import os
import stat
from pathlib import Path

from infra.errors import ConfigurationError

_ADVICE = "give another with `--data-dir` or DUET_DATA_DIR"


def require_data_folder(folder: Path) -> None:
    """Make the folder where it is missing; raises ConfigurationError when it cannot be made or written to."""
    _refuse_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "its parent is not writable" if isinstance(error, PermissionError) else (error.strerror or str(error))
        raise ConfigurationError(f"The data folder `{folder}` cannot be made: {reason}; {_ADVICE}.") from error
    if not _allowed(folder, os.W_OK):
        raise ConfigurationError(f"The data folder `{folder}` is not writable for this user; {_ADVICE}.")


def require_open_folder(folder: Path) -> None:
    """Raise ConfigurationError when a file stands where the folder belongs, or when it is closed to this user."""
    _refuse_file(folder)
    try:
        is_open = not folder.exists() or _allowed(folder, os.R_OK)
    except PermissionError:
        is_open = False
    if not is_open:
        raise ConfigurationError(
            f"The data folder `{folder}` is closed to this user: run this as the account it belongs to, or {_ADVICE}."
        )


def _refuse_file(folder: Path) -> None:
    in_the_way = next((part for part in (folder, *folder.parents) if _is_file(part)), None)
    if in_the_way is not None:
        raise ConfigurationError(
            f"The data folder `{folder}` cannot be made: `{in_the_way}` is a file and no folder; {_ADVICE}."
        )


def _is_file(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False  # missing, or in a folder that this user may not look into


def _allowed(folder: Path, access: int) -> bool:
    return os.access(folder, access | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
