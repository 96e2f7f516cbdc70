"""The root of every error that Duet raises on purpose; each reaches a person as one sentence.

    DuetError
    ├── ConfigurationError      a setting is missing, misspelt or out of bounds
    ├── MigrationError          the database schema cannot be brought to the version this code needs
    └── ServerError
        ├── RoleMissing         a role that is to be given rights does not exist in the database
        ├── ServerUnavailable   a server cannot be reached, did not start, or did not stop in time
        ├── PortTaken           somebody else listens on a port that was asked for by number
        └── NoConnection        no connection of a pool came free in time, or too many wait for one already

Every other package derives its own tree from `DuetError` in its own `errors.py`.
"""


class DuetError(Exception):
    """Base of all errors with a sentence for a person: what, with which value, what to do."""


class ConfigurationError(DuetError):
    """A setting is missing, misspelt or out of bounds."""


class MigrationError(DuetError):
    """The database schema cannot be brought to the version that this code needs."""


class ServerError(DuetError):
    """Something is wrong with a server that Duet talks to."""


class RoleMissing(ServerError):
    """A role that is to be given rights does not exist in the database."""


class ServerUnavailable(ServerError):
    """A server cannot be reached, did not start, or did not stop in time."""


class PortTaken(ServerError):
    """Somebody else listens on a port that was asked for by number."""


class NoConnection(ServerError):
    """No connection of a pool came free in time, or too many calls wait for one already."""
