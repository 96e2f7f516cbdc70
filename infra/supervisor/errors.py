"""What can go wrong while processes are started, watched and stopped.

DuetError
└── SupervisorError
    ├── ServiceDied           a process ended although it should run
    ├── ServiceNotHealthy     a process runs but did not become healthy in time
    ├── StepFailed            a one-time preparation step ended with an error
    ├── StartInterrupted      a stop was asked for before everything was healthy
    ├── NoSuchLog             no process writes a log of that name
    ├── PlatformRunning       a platform already runs on this data directory
    ├── PlatformNotRunning    the command needs a running platform
    ├── UnknownProcess        the platform has no process of that name that it could start
    ├── RestartFailed         a process that was to be started anew did not become healthy
    └── PlatformNotStopped    the platform did not end in time, or processes are left over
"""

from infra.errors import DuetError
from infra.logging import redact_text


def in_words(failure: Exception) -> str:
    """Return the sentence of an error of ours, and of any other its type with its words, without secrets."""
    if isinstance(failure, DuetError):
        return str(failure)
    return redact_text(f"{type(failure).__name__}: {failure}")


class SupervisorError(DuetError):
    """Anything about starting, watching and stopping processes."""


class ServiceDied(SupervisorError):
    """A process ended although it should run."""


class ServiceNotHealthy(SupervisorError):
    """A process runs but did not become healthy in time."""


class StepFailed(SupervisorError):
    """A one-time preparation step ended with an error."""


class StartInterrupted(SupervisorError):
    """A stop was asked for before everything was healthy."""


class NoSuchLog(SupervisorError):
    """No process writes a log of that name."""


class PlatformRunning(SupervisorError):
    """A platform already runs on this data directory."""


class PlatformNotRunning(SupervisorError):
    """The command needs a running platform."""


class UnknownProcess(SupervisorError):
    """The platform has no process of that name that it could start."""


class RestartFailed(SupervisorError):
    """A process that was to be started anew did not become healthy."""


class PlatformNotStopped(SupervisorError):
    """The platform did not end in time, or processes are left over."""
