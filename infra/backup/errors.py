"""Errors of backups.

DuetError
└── BackupError
    ├── ToolMissing          no `pg_dump` or `pg_restore` here is new enough for the server
    ├── ToolFailed           one of them ended with an error
    ├── BackupInTheWay       something stands where a backup, or what it holds, is to be put
    └── BackupDamaged        a backup is unfinished, was changed, or is of another version
"""

from infra.errors import DuetError


class BackupError(DuetError):
    """A backup cannot be taken or restored."""


class ToolMissing(BackupError):
    """No `pg_dump` or `pg_restore` on this machine is new enough for the server."""


class ToolFailed(BackupError):
    """`pg_dump` or `pg_restore` ended with an error."""


class BackupInTheWay(BackupError):
    """Something stands where a backup, or what it holds, is to be put."""


class BackupDamaged(BackupError):
    """A backup is unfinished, was changed after it was taken, or is of another version."""
