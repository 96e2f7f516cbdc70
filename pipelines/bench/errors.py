"""What can go wrong while serving is measured.

DuetError
└── BenchError
    ├── ForeignFolder      the folder of a world holds something that is not one
    ├── WrongAnswers       the service gave answers that no benchmark may count
    ├── ProcessFailed      a process of the benchmark ended or never became ready
    └── NothingMeasured    a load ended without a single answer
"""

from infra.errors import DuetError


class BenchError(DuetError):
    """A measurement cannot go on, or must not be trusted."""


class ForeignFolder(BenchError):
    """The folder of a world holds something that is not one."""


class WrongAnswers(BenchError):
    """The service gave answers that no benchmark may count."""


class ProcessFailed(BenchError):
    """A process of the benchmark ended or never became ready."""


class NothingMeasured(BenchError):
    """A load ended without a single answer."""
