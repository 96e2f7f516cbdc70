"""The guard: ends an experiment whose challenger breaks a guardrail, and takes back a fresh release that does.

A release is judged for a while after its promotion, beside the one before. One that stands because of a rollback is
never judged: there would be no end of rolling back. After a rollback of its own the guard rests. What it does is in
the audit, in the events of experiments, in an alert and in its last verdict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import psycopg
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from pipelines.experiments.guardrails import Finding, Guardrails, shown
from pipelines.experiments.watching import findings_of, of_experiment, of_release
from registry.contracts import PRODUCTION
from registry.errors import RegistryError
from registry.experiments.table import (
    By,
    ExperimentState,
    ListedExperiment,
    keep_verdict,
    last_verdicts,
    list_experiments,
)
from registry.experiments.table import stop_experiment as stop
from registry.promotion.audit import Promotion, PromotionLog
from registry.promotion.history import standing_releases
from registry.promotion.promotion import rollback
from registry.promotion.release_cache import ReleaseCache
from registry.store import ModelRegistry

ACTOR: Final = "dagster:guard"
_FRESH: Final = timedelta(hours=1)
_LATER: Final = timedelta(minutes=5)
"""In its first hour a release is judged at every look, after that so often."""
Outcome = Literal["waiting", "well", "broken", "ended", "rolled back"]
Alert = Callable[[str, str, Mapping[str, JsonValue]], None]
"""Takes the kind of an alert, one sentence, and figures."""


@dataclass(frozen=True)
class GuardDecision:
    """What the guard found of a challenger (`of` is its experiment) or a champion (its release), and what it did."""

    subject: Literal["challenger", "champion"]
    of: str
    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        """Say it for a person."""
        return f"{self.subject} {self.of}: {self.outcome}; {self.summary}"


@dataclass(frozen=True)
class Guard:
    """Judges and acts; `registry` gives the model registry, if there is one, when a release has to be taken back.

    `connection` commits each statement by itself, so that what was done stays done.
    """

    connection: psycopg.Connection[Any]
    log: PromotionLog
    registry: Callable[[], ModelRegistry | None]
    rails: Guardrails
    alert: Alert
    feature_schema: str | None
    cache: ReleaseCache | None = None

    def watch(self, now: datetime) -> list[GuardDecision]:
        """Judge what is active, act where a guardrail is broken, keep and return the verdicts; none while all rests."""
        found = [self._challenger(now), self._champion(now)]
        verdicts = [verdict for verdict in found if verdict is not None]
        for verdict in verdicts:
            self._keep(verdict, now)
        return verdicts

    def _challenger(self, now: datetime) -> GuardDecision | None:
        running = [
            one for one in list_experiments(self.connection) if one.state == ExperimentState.RUNNING and one.started_at
        ]
        if not running:
            return None
        return self._judge_challenger(running[0], now)

    def _judge_challenger(self, experiment: ListedExperiment, now: datetime) -> GuardDecision | None:
        started_at = experiment.started_at or now
        watched = of_experiment(experiment.name, started_at, now, self.rails.window_s)
        findings = findings_of(self.connection, watched, self.rails)
        broken = [finding for finding in findings if finding.broken]
        if not broken:
            return GuardDecision("challenger", experiment.name, _unbroken(findings), shown(findings), tuple(findings))
        why = f"the challenger broke its guardrail: {shown(broken)}"
        if not stop(self.connection, experiment.name, by=By(ACTOR, "automation", why)):
            return None  # somebody was faster
        self.alert("experiment_ended", f"Experiment {experiment.name} was ended: {why}.", _figures(findings))
        return GuardDecision("challenger", experiment.name, "ended", why, tuple(findings))

    def _champion(self, now: datetime) -> GuardDecision | None:
        fresh = self._fresh(now)
        if fresh is None:
            return None
        history = self.log.history(PRODUCTION)
        standing = standing_releases(history)
        if len(standing) < 2 or standing[-1] != fresh.versions or fresh.at is None:
            return None  # the first release has nothing to be compared with, and nothing to go back to
        release, before = fresh.versions.release_id, standing[-2].release_id
        known = last_verdicts(self.connection).get("champion")
        if known is not None and known.of == release and fresh.at + _FRESH < known.judged_at > now - _LATER:
            return None  # by now there is much to read, and a few minutes more change little
        watched = of_release(self.connection, release, before, fresh.at, now, rails=self.rails)
        findings = findings_of(self.connection, watched, self.rails)
        broken = [finding for finding in findings if finding.broken]
        if not broken:
            return GuardDecision("champion", release, _unbroken(findings), shown(findings), tuple(findings))
        why = f"{release} broke its guardrail beside {before}: {shown(broken)}"
        resting = self._resting_until(history)
        if resting is not None and now < resting:
            return self._powerless(release, f"{why}; the guard rests until {resting:%H:%M:%S} UTC", findings)
        return self._roll_back(fresh, why, findings)

    def _fresh(self, now: datetime) -> Promotion | None:
        last = self.log.history(PRODUCTION, limit=1)
        if not last or last[-1].at is None or last[-1].is_departure or last[-1].rolled_back_from is not None:
            return None
        return last[-1] if now - last[-1].at <= timedelta(seconds=self.rails.watch_s) else None

    def _resting_until(self, history: Any) -> datetime | None:
        mine = [one.at for one in history if one.actor == ACTOR and one.rolled_back_from is not None and one.at]
        return max(mine) + timedelta(seconds=self.rails.cool_down_s) if mine else None

    def _roll_back(self, judged: Promotion, why: str, findings: list[Finding]) -> GuardDecision:
        release = judged.versions.release_id
        try:
            if self.log.history(PRODUCTION, limit=1)[-1].at != judged.at:
                return GuardDecision(
                    "champion", release, "well", "another release was promoted meanwhile", tuple(findings)
                )
            target = rollback(
                self.registry(),
                self.log,
                actor=ACTOR,
                way="automation",
                feature_schema=self.feature_schema,
                reason=why,
                cache=self.cache,
            )
        except RegistryError as error:
            return self._powerless(release, f"{why}; it could not be taken back: {error}", findings)
        summary = f"{why}; {target.release_id} is back in Production"
        self.alert("release_rolled_back", f"{summary}.", _figures(findings))
        return GuardDecision("champion", release, "rolled back", summary, tuple(findings))

    def _powerless(self, release: str, summary: str, findings: list[Finding]) -> GuardDecision:
        known = last_verdicts(self.connection).get("champion")
        if known is None or (known.of, known.verdict) != (release, "broken"):
            self.alert("guardrail_broken", f"{summary}.", _figures(findings))
        return GuardDecision("champion", release, "broken", summary, tuple(findings))

    def _keep(self, verdict: GuardDecision, now: datetime) -> None:
        figures = Jsonb([finding.numbers() for finding in verdict.findings])
        keep_verdict(
            self.connection,
            subject=verdict.subject,
            of=verdict.of,
            verdict=verdict.outcome,
            summary=verdict.summary,
            figures=figures,
            at=now,
        )


def _unbroken(findings: list[Finding]) -> Outcome:
    return "well" if any(finding.enough for finding in findings) else "waiting"


def _figures(findings: list[Finding]) -> dict[str, JsonValue]:
    return {finding.metric: finding.numbers() for finding in findings}
