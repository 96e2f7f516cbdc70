"""What can go wrong in the pipelines around the science.

DuetError
└── PipelineError
    ├── UnsupportedConfigField   a configuration model cannot be shown in the Launchpad
    ├── MissingUpstream          a step was started alone and what it builds on was never made
    ├── EmptySnapshot            there is nobody, or not a single decision, to learn from
    ├── ImpossibleInstant        the instant asked for is not an instant or holds no data
    ├── InvalidSetting           a `--set` of the command line is unknown or malformed
    ├── RunFailed                a run of the command line ended in failure
    └── RunTerminated            a run of the command line was terminated in Dagster
"""

from infra.errors import DuetError


class PipelineError(DuetError):
    """A pipeline cannot go on."""


class UnsupportedConfigField(PipelineError):
    """A configuration model has a field that the Launchpad cannot show."""


class MissingUpstream(PipelineError):
    """What this step builds on was never made."""


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
