"""What the guard holds releases to, read from a file that a person can change, and the judgement of one figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite, pi
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from pipelines.experiments.clustered import ENOUGH_EVENTS, Pair, Sums
from pipelines.experiments.errors import UnusableGuardrails
from pipelines.experiments.sequential import half_width

Metric = Literal["error_rate", "below_full_rate", "slow_rate", "like_rate"]
GUARDRAILS: Final = Path(__file__).with_name("guardrails.yaml")
EXPECTED_EXCESS: Final = 0.05
"""The excess of a rate for which the bound is tightest."""
_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")


class Guardrail(BaseModel):
    """One figure and how much worse than the other side's it may be: `factor` times as large, plus `margin`.

    For `slow_rate` the factor is of the other side's p95, and the margin is the share that may be slower than that.
    """

    model_config = _FROZEN

    metric: Metric
    worse: Literal["higher", "lower"]
    factor: Annotated[FiniteFloat, Field(gt=0, le=100)] = 1.0
    margin: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.0

    def limit(self, other: float) -> float:
        """Return the value that must not be passed, given the other side's rate."""
        if self.metric == "slow_rate":
            return self.margin
        return self.factor * other + (self.margin if self.worse == "higher" else -self.margin)


class Guardrails(BaseModel):
    """All guardrails, and how they are watched; times in s, numbers of each side."""

    model_config = _FROZEN

    alpha: Annotated[FiniteFloat, Field(gt=0, le=0.5)]
    minimum_answers: Annotated[int, Field(ge=10)]
    minimum_people: Annotated[int, Field(ge=2)]
    window_s: Annotated[FiniteFloat, Field(ge=10, le=86400)]
    watch_s: Annotated[FiniteFloat, Field(ge=10, le=604800)]
    cool_down_s: Annotated[FiniteFloat, Field(ge=0, le=604800)]
    attribution_s: Annotated[FiniteFloat, Field(gt=0, le=86400)]
    guardrails: Annotated[tuple[Guardrail, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        metrics = [rail.metric for rail in self.guardrails]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"a metric has more than one guardrail: {', '.join(metrics)}")
        return self

    def of(self, metric: Metric) -> Guardrail | None:
        """Return the guardrail of a metric, None where it has none."""
        return next((rail for rail in self.guardrails if rail.metric == metric), None)

    def alpha_of(self, window: int) -> float:
        """Return the chance of a false alarm that one guardrail has in the window of this number, from 0.

        The shares of all windows and all guardrails add up to `alpha`, however long an experiment lasts.
        """
        return self.alpha * 6 / (pi * (window + 1)) ** 2 / len(self.guardrails)


@dataclass(frozen=True)
class Finding:
    """What one guardrail says; `bound` is what the excess surely is at least, -inf where too few answered."""

    metric: Metric
    value: float
    other: float
    limit: float
    bound: float
    enough: bool

    @property
    def broken(self) -> bool:
        """Tell whether the guardrail is surely broken."""
        return self.enough and self.bound > 0

    def __str__(self) -> str:
        """Say it for a person."""
        if not self.enough:
            return f"{self.metric}: too few yet"
        return f"{self.metric} {self.value:.4f} (limit {self.limit:.4f}, other side {self.other:.4f})"

    def numbers(self) -> dict[str, Any]:
        """Return it as JSON: what is not a number is null."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in {**asdict(self), "broken": self.broken}.items()
        }


def judge(rails: Guardrails, rail: Guardrail, subject: Sums, other: Sums, window: int) -> Finding:
    """Return what a guardrail says of the subject's rate beside the other side's."""
    enough = all(
        side.trials >= rails.minimum_answers and side.people >= rails.minimum_people for side in (subject, other)
    )
    if not enough:
        return Finding(rail.metric, subject.rate, other.rate, rail.limit(other.rate), -inf, enough=False)
    pair = Pair(subject, other)
    # What is rarer than it should be must first be expected; what is more frequent shows itself.
    if rail.worse == "lower" and pair.effective_events < ENOUGH_EVENTS:
        return Finding(rail.metric, subject.rate, other.rate, rail.limit(other.rate), -inf, enough=False)
    limit = rail.limit(other.rate)
    excess = subject.rate - limit if rail.worse == "higher" else limit - subject.rate
    variance = pair.variance(subject)
    if rail.metric != "slow_rate":  # whose limit is no figure of the other side
        variance += rail.factor**2 * pair.variance(other)
    bound = excess - half_width(variance, EXPECTED_EXCESS, rails.alpha_of(window))
    return Finding(rail.metric, subject.rate, other.rate, limit, bound, enough=True)


def load_guardrails(path: Path | None = None) -> Guardrails:
    """Read guardrails from a file, by default the one beside this module; raises UnusableGuardrails."""
    file = path or GUARDRAILS
    try:
        return Guardrails.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UnusableGuardrails(f"The guardrails in {file} are refused: `{where}`: {first['msg']}.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UnusableGuardrails(f"The guardrails in {file} cannot be read: {reason}.") from error


def shown(findings: Sequence[Finding]) -> str:
    """Say all findings in one line."""
    return "; ".join(str(finding) for finding in findings)
