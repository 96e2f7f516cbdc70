"""What can go wrong when experiments are judged.

DuetError
└── ExperimentError
    ├── NothingToReport         no experiment was ever started
    └── UnusableGuardrails      the file of guardrails cannot be read as what it must be
"""

from infra.errors import DuetError


class ExperimentError(DuetError):
    """An experiment cannot be judged."""


class NothingToReport(ExperimentError):
    """No experiment was ever started."""


class UnusableGuardrails(ExperimentError):
    """The file of guardrails cannot be read as what it must be."""
