"""Every Prometheus metric of Duet; nothing else creates one.

Label sets are closed: routes, stages, levels and kinds come from enumerations, never from a request. With
`PROMETHEUS_MULTIPROC_DIR` set (BentoML sets it for its workers) values are summed over all processes at scrape time;
the module that imports this one must therefore be loaded after that variable is set.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_FAST_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0)
_SHARE_BUCKETS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_COUNT_BUCKETS = (0, 1, 5, 10, 20, 50, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class ServingMetrics:
    """What the serving app measures; durations in seconds."""

    requests: Counter
    request_seconds: Histogram
    stage_seconds: Histogram
    answers: Counter
    answer_items: Histogram
    candidates: Histogram
    predictions: Histogram
    stage_degraded: Counter
    interactions: Counter
    impressions: Counter
    answers_logged: Counter
    release_version: Gauge
    release_swaps: Counter
    release_refusals: Counter
    release_refused: Gauge
    release_pinned: Gauge
    population_people: Gauge
    population_loaded_at: Gauge
    pool_waiting: Gauge
    pool_connections: Gauge
    pool_limit: Gauge
    pool_refusals: Counter
    replica_lag_seconds: Gauge
    cache_reads: Counter
    cache_evictions: Counter
    cache_entries: Gauge
    breaker_state: Gauge
    breaker_calls: Counter
    admissions: Counter
    in_flight: Gauge
    inference_rows: Histogram
    inference_seconds: Histogram
    index_built_at: Gauge
    index_missing: Gauge
    newcomers: Gauge
    newcomers_left_out: Gauge
    newcomers_looked_at: Gauge
    features_filled_at: Gauge
    features_lost: Gauge
    assignments: Counter
    shadow: Counter
    auth_refusals: Counter
    task_ends: Counter
    model_calls: Counter
    model_failures: Counter
    process_memory: Gauge
    process_cpu_seconds: Gauge
    process_descriptors: Gauge
    memory_limit: Gauge
    disk_free: Gauge
    disk_size: Gauge
    measurement: Gauge
    measured_at: Gauge
    webhooks: Counter
    webhooks_waiting: Gauge
    webhooks_oldest: Gauge
    stream_waiting: Gauge
    stream_oldest: Gauge
    stream_settled: Gauge


@lru_cache(maxsize=1)
def serving_metrics() -> ServingMetrics:
    """Return the serving app's metrics, made on the first call."""
    return ServingMetrics(
        requests=Counter("duet_http_requests_total", "Answered HTTP requests.", ["route", "status"]),
        request_seconds=Histogram(
            "duet_http_request_seconds", "Time to answer an HTTP request.", ["route"], buckets=_FAST_BUCKETS
        ),
        stage_seconds=Histogram(
            "duet_stage_seconds", "Time of one stage of a recommendation.", ["stage"], buckets=_FAST_BUCKETS
        ),
        answers=Counter("duet_answers_total", "Recommendation answers by level and reason.", ["level", "reason"]),
        answer_items=Histogram("duet_answer_items", "People in one answer.", buckets=_COUNT_BUCKETS),
        candidates=Histogram("duet_candidates", "Candidates left after a step.", ["step"], buckets=_COUNT_BUCKETS),
        predictions=Histogram(
            "duet_prediction", "Predicted probabilities of shown people.", ["direction"], buckets=_SHARE_BUCKETS
        ),
        stage_degraded=Counter("duet_stage_degraded_total", "Stages that did without a dependency.", ["stage"]),
        interactions=Counter("duet_interactions_total", "Interactions received.", ["kind", "status"]),
        impressions=Counter("duet_impressions_total", "Impressions by fate.", ["fate"]),
        answers_logged=Counter("duet_answers_logged_total", "Rows of the table of answers by fate.", ["fate"]),
        release_version=Gauge(
            "duet_release_version", "Model versions being served.", ["model"], multiprocess_mode="livemostrecent"
        ),
        release_swaps=Counter("duet_release_swaps_total", "Releases that began to serve."),
        release_refusals=Counter("duet_release_refusals_total", "Releases that were refused."),
        release_refused=Gauge(
            "duet_release_refused",
            "Whether the newest release of a stage does not serve.",
            ["stage"],
            multiprocess_mode="livemax",
        ),
        release_pinned=Gauge(
            "duet_release_pinned",
            "Whether a rollback is pinned that MLflow was not told of yet.",
            multiprocess_mode="livemax",
        ),
        population_people=Gauge(
            "duet_population_people", "People in the snapshot.", multiprocess_mode="livemostrecent"
        ),
        population_loaded_at=Gauge(
            "duet_population_loaded_timestamp_seconds",
            "When the snapshot was last refreshed.",
            multiprocess_mode="livemin",
        ),
        pool_waiting=Gauge(
            "duet_pool_waiting_requests", "Requests waiting for a database connection.", multiprocess_mode="livesum"
        ),
        pool_connections=Gauge(
            "duet_pool_connections",
            "Database connections by pool and state.",
            ["pool", "state"],
            multiprocess_mode="livesum",
        ),
        pool_limit=Gauge(
            "duet_pool_limit_connections", "Most connections of a pool.", ["pool"], multiprocess_mode="livesum"
        ),
        pool_refusals=Counter("duet_pool_refusals_total", "Calls that got no database connection in time.", ["pool"]),
        replica_lag_seconds=Gauge(
            "duet_replica_lag_seconds",
            "How far the read replica is behind; without an answer, time since it is known to have been up to date.",
            multiprocess_mode="livemax",
        ),
        cache_reads=Counter("duet_cache_reads_total", "Looks into the cache of answers.", ["tier", "result"]),
        cache_evictions=Counter("duet_cache_evictions_total", "Answers pushed out of the cache's memory."),
        cache_entries=Gauge("duet_cache_entries", "Answers in the cache's memory.", multiprocess_mode="livesum"),
        breaker_state=Gauge(
            "duet_breaker_state", "0 closed, 1 half open, 2 open.", ["dependency"], multiprocess_mode="livemax"
        ),
        breaker_calls=Counter(
            "duet_breaker_calls_total", "Calls through a breaker by how they ended.", ["dependency", "result"]
        ),
        admissions=Counter("duet_admissions_total", "Calls admitted, queued first, or refused.", ["outcome"]),
        in_flight=Gauge("duet_in_flight", "Calls being worked on.", multiprocess_mode="livesum"),
        inference_rows=Histogram(
            "duet_inference_rows", "Rows handed to a model at once.", ["model"], buckets=_COUNT_BUCKETS
        ),
        inference_seconds=Histogram(
            "duet_inference_seconds", "Time of one call of a model.", ["model"], buckets=_FAST_BUCKETS
        ),
        index_built_at=Gauge(
            "duet_index_built_timestamp_seconds",
            "Until when the index being served knows what people did.",
            multiprocess_mode="livemin",
        ),
        index_missing=Gauge(
            "duet_index_missing_people",
            "People in the snapshot whom the index does not hold.",
            ["variant"],
            multiprocess_mode="livemostrecent",
        ),
        newcomers=Gauge(
            "duet_newcomers",
            "People searched beside the index: missing from it, or changed since it was built.",
            ["variant"],
            multiprocess_mode="livemostrecent",
        ),
        newcomers_left_out=Gauge(
            "duet_newcomers_left_out",
            "People whom the index does not know as they are and who found no place among the newcomers.",
            ["variant"],
            multiprocess_mode="livemax",
        ),
        newcomers_looked_at=Gauge(
            "duet_newcomers_looked_timestamp_seconds",
            "When newcomers were last looked for.",
            multiprocess_mode="livemin",
        ),
        features_filled_at=Gauge(
            "duet_features_filled_timestamp_seconds",
            "When the online features were last written.",
            multiprocess_mode="livemin",
        ),
        features_lost=Gauge(
            "duet_features_lost",
            "Whether the online feature store, or what was read from it, has lost what it was filled with.",
            multiprocess_mode="livemax",
        ),
        assignments=Counter("duet_assignments_total", "Answers by arm of the experiment.", ["variant"]),
        shadow=Counter("duet_shadow_total", "Shadow computations by how they ended.", ["outcome"]),
        auth_refusals=Counter("duet_auth_refusals_total", "Calls refused for their key.", ["reason"]),
        task_ends=Counter("duet_task_ends_total", "Background tasks that ended and were begun again.", ["task"]),
        model_calls=Counter(
            "duet_model_calls_total", "Answers that asked a model, or were cut off from it.", ["model", "variant"]
        ),
        model_failures=Counter(
            "duet_model_failures_total",
            "Answers that a model failed, or that were cut off from it because it had failed.",
            ["model", "variant"],
        ),
        # With several processes the library adds a label `pid` to what is kept of each of them.
        process_memory=Gauge(
            "duet_process_memory_bytes",
            "Resident memory of a worker: its own, and what it maps from files.",
            ["part"],
            multiprocess_mode="liveall",
        ),
        process_cpu_seconds=Gauge(
            "duet_process_cpu_seconds", "Processor time of a worker since its start.", multiprocess_mode="liveall"
        ),
        process_descriptors=Gauge(
            "duet_process_open_descriptors", "Open files and sockets of a worker.", multiprocess_mode="liveall"
        ),
        memory_limit=Gauge(
            "duet_memory_limit_bytes", "Memory that all workers here may use together.", multiprocess_mode="livemin"
        ),
        disk_free=Gauge(
            "duet_disk_free_bytes", "Free space where the data folder lies.", multiprocess_mode="livemostrecent"
        ),
        disk_size=Gauge(
            "duet_disk_size_bytes", "All space where the data folder lies.", multiprocess_mode="livemostrecent"
        ),
        measurement=Gauge(
            "duet_measurement",
            "What the pipelines measured last.",
            ["measure"],
            multiprocess_mode="livemostrecent",
        ),
        measured_at=Gauge(
            "duet_measurement_timestamp_seconds",
            "When the pipelines measured it.",
            ["measure"],
            multiprocess_mode="livemostrecent",
        ),
        webhooks=Counter(
            "duet_webhooks_total", "Deliveries to the webhook that arrived or failed, and events given up.", ["outcome"]
        ),
        webhooks_waiting=Gauge(
            "duet_webhooks_waiting", "Events that the webhook was not told of yet.", multiprocess_mode="livemostrecent"
        ),
        webhooks_oldest=Gauge(
            "duet_webhooks_oldest_seconds",
            "Age of the oldest event that the webhook was not told of yet.",
            multiprocess_mode="livemostrecent",
        ),
        stream_waiting=Gauge(
            "duet_stream_waiting_entries",
            "Entries of a stream that are not stored yet.",
            ["stream"],
            multiprocess_mode="livemostrecent",
        ),
        stream_oldest=Gauge(
            "duet_stream_oldest_seconds",
            "Age of the oldest entry of a stream that is not stored yet.",
            ["stream"],
            multiprocess_mode="livemostrecent",
        ),
        stream_settled=Gauge(
            "duet_stream_settled_entries",
            "Entries of a stream that were stored or became dead letters, since it is read.",
            ["stream", "outcome"],
            multiprocess_mode="livemostrecent",
        ),
    )


def render() -> tuple[bytes, str]:
    """Return the exposition of all metrics, over all processes where there are several, and its media type."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        _forget_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _forget_dead(folder: Path) -> None:
    """Remove the live gauges of workers that were killed: nobody else tells the library that they are gone."""
    for file in folder.glob("gauge_live*_*.db"):
        process = file.stem.rpartition("_")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            multiprocess.mark_process_dead(int(process))  # type: ignore[no-untyped-call]
