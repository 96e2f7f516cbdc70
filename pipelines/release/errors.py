"""What can go wrong when a release candidate is put together.

DuetError
└── PipelineError
    ├── NoCandidate       the parts at hand do not make a release
    ├── InvalidGates      the file of the gates cannot be read or says something impossible
    └── NothingToCompare  nothing happened since that could tell two releases apart
"""

from pipelines.errors import PipelineError


class NoCandidate(PipelineError):
    """The parts at hand do not make a release."""


class InvalidGates(PipelineError):
    """The file of the gates cannot be read or says something impossible."""


class NothingToCompare(PipelineError):
    """Nothing happened since that could tell two releases apart."""
