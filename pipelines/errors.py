"""What can go wrong in the pipelines around the science.

DuetError
└── PipelineError
    ├── MissingUpstream          a step was started alone and what it builds on was never made
    ├── SharedFolderUnavailable  the results that machines share cannot be reached
    ├── EmptySnapshot            there is nobody, or not a single decision, to learn from
    ├── ImpossibleInstant        the instant asked for is not an instant or holds no data
    ├── InvalidSetting           a `--set` of the command line is unknown or malformed
    ├── RunFailed                a run of the command line ended in failure
    └── RunTerminated            a run of the command line was terminated in Dagster
"""

from infra.errors import DuetError


class PipelineError(DuetError):
    """A pipeline cannot go on."""


class MissingUpstream(PipelineError):
    """What this step builds on was never made."""


class SharedFolderUnavailable(PipelineError):
    """The folder or bucket of `DUET_RESULTS_URI` cannot be reached."""


class EmptySnapshot(PipelineError):
    """There is nothing to learn from."""


class ImpossibleInstant(PipelineError):
    """The instant asked for is not an instant or lies before all data."""


class InvalidSetting(PipelineError):
    """A setting given on the command line is unknown or malformed."""


class RunFailed(PipelineError):
    """A run started from the command line ended in failure."""


class RunTerminated(PipelineError):
    """A run started from the command line was terminated in Dagster's UI."""
