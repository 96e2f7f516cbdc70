"""What one invocation of the command line knows: the global options and, once asked for, the settings.

Settings are read lazily, so that `duet --help` works with a broken configuration.
"""

from dataclasses import dataclass, field
from pathlib import Path

import typer

from infra.settings import Settings, load_settings


@dataclass
class Invocation:
    """The global options of one `duet` call."""

    data_dir: Path | None = None
    debug: bool = False
    _settings: Settings | None = field(default=None, repr=False)

    def settings(self) -> Settings:
        """Return the settings, read at the first call.

        Raises:
            ConfigurationError: a variable or a file holds a value that is refused.
        """
        if self._settings is None:
            overrides = {} if self.data_dir is None else {"data_dir": self.data_dir}
            self._settings = load_settings(**overrides)
        return self._settings


def current_invocation(ctx: typer.Context) -> Invocation:
    """Return the invocation that `ctx` belongs to; a bare context (in a test) gets a fresh one."""
    root = ctx.find_root()
    if not isinstance(root.obj, Invocation):
        root.obj = Invocation()
    return root.obj


def current_settings(ctx: typer.Context) -> Settings:
    """Return the settings of this invocation, with `--data-dir` applied.

    Raises:
        ConfigurationError: a variable or a file holds a value that is refused.
    """
    return current_invocation(ctx).settings()
