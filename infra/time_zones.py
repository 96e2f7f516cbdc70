"""Whether this machine can tell time zones at all: Arrow reads the database of the system and knows no other."""

from infra.errors import ConfigurationError

REMEDY = "install the package `tzdata` of the operating system (apt-get install tzdata)"


def has_time_zones() -> bool:
    """Return whether Arrow finds the time zone database; a minimal image has none, and then not even UTC is known."""
    import pyarrow as pa

    try:
        pa.array([0], pa.timestamp("us", "UTC")).cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def require_time_zones() -> None:
    """Raise ConfigurationError with one sentence where the machine has no time zone database."""
    if not has_time_zones():
        raise ConfigurationError(f"This machine has no time zone database (/usr/share/zoneinfo); {REMEDY}.")
