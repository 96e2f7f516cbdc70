"""What can go wrong when a release candidate is put together.

DuetError
└── PipelineError
    └── NoCandidate   the parts at hand do not make a release
"""

from pipelines.errors import PipelineError


class NoCandidate(PipelineError):
    """The parts at hand do not make a release."""
