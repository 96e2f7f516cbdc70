"""Errors of the evaluation.

DuetError
└── EvaluationError
    ├── EmptyWindow     one of the three time windows holds no decision
    ├── EmptyReference  there is nothing to measure drift against
    ├── NobodyToAsk     nobody in the held-out window can be evaluated
    ├── RefusedSplit    the files of a published split do not hold one
    └── UnknownPerson   the ground-truth world does not know a person of the evaluation
"""

from infra.errors import DuetError


class EvaluationError(DuetError):
    """The evaluation cannot be carried out."""


class EmptyWindow(EvaluationError):
    """A time window holds no decision."""


class EmptyReference(EvaluationError):
    """There is nothing to measure drift against."""


class NobodyToAsk(EvaluationError):
    """Nobody in the held-out window has a like to find."""


class RefusedSplit(EvaluationError):
    """The files of a published split do not hold one."""


class UnknownPerson(EvaluationError):
    """The ground-truth world does not know a person of the evaluation."""
