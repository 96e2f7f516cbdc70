"""What can go wrong in a search for hyperparameters.

DuetError
└── PipelineError
    └── NoTrial   not a single trial was finished
"""

from pipelines.errors import PipelineError


class NoTrial(PipelineError):
    """Not a single trial was finished."""
