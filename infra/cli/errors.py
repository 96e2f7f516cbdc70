"""What can go wrong on the command line itself.

DuetError
└── CommandError
    └── DemoFailed            a step of the demo did not do what it should
"""

from infra.errors import DuetError


class CommandError(DuetError):
    """Anything that a command of `infra.cli` refuses or fails at."""


class DemoFailed(CommandError):
    """A step of the demo did not do what it should."""
