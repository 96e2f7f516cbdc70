"""OpenTelemetry traces: a request, its stages, and the stores that these ask. Off unless settings say where they go.

While they are off, a span costs one comparison. Spans carry names, durations and closed sets of words, and never the
id of a person.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from infra.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

_OFF: Final[AbstractContextManager[None]] = nullcontext()
_SHUTDOWN_MS: Final = 3000
Attributes = Mapping[str, str | int | float | bool]


class _Tracing:
    """What is traced with in this process; `provider` is None while traces are off."""

    provider: "TracerProvider | None" = None


def start_tracing(settings: Settings, service: str, processor: "SpanProcessor | None" = None) -> bool:
    """Begin to trace where settings say where to, or to `processor`; return whether traces are on."""
    if processor is None:
        if settings.tracing.endpoint is None:
            return False
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.tracing.endpoint.get_secret_value()))
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource.create({"service.name": service, "deployment.environment.name": settings.environment})
    # A provider of our own: BentoML has one, too, whose spans would name every request a second time.
    provider = TracerProvider(ParentBased(TraceIdRatioBased(settings.tracing.share)), resource)
    provider.add_span_processor(processor)
    _Tracing.provider = provider
    return True


def stop_tracing() -> None:
    """Send what is left, within a bound, and trace no more."""
    provider, _Tracing.provider = _Tracing.provider, None
    if provider is not None:
        provider.force_flush(_SHUTDOWN_MS)
        provider.shutdown()


def span(name: str, attributes: Attributes | None = None) -> "AbstractContextManager[Span | None]":
    """Trace the block as a part of what is being traced in this task; nothing outside of a request."""
    provider = _Tracing.provider
    if provider is None:
        return _OFF
    return _child(provider, name, attributes)


@contextmanager
def _child(provider: "TracerProvider", name: str, attributes: Attributes | None) -> "Iterator[Span | None]":
    from opentelemetry import trace

    if not trace.get_current_span().get_span_context().is_valid:
        yield None
        return
    with _started(provider, name, attributes=attributes) as child:
        yield child


@contextmanager
def request_span(
    name: str, trace_id: str | None = None, span_id: str | None = None, *, sampled: bool = False
) -> "Iterator[Span | None]":
    """Trace a request, in the caller's trace where there is one (ids in hexadecimal digits)."""
    provider = _Tracing.provider
    if provider is None:
        yield None
        return
    from opentelemetry import trace

    if trace_id is not None and span_id is not None:
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
        known = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)
        caller = trace.set_span_in_context(trace.NonRecordingSpan(known))
    else:
        caller = trace.set_span_in_context(trace.INVALID_SPAN)
    with _started(provider, name, context=caller, kind=trace.SpanKind.SERVER) as started:
        yield started


@contextmanager
def _started(provider: "TracerProvider", name: str, **how: Any) -> "Iterator[Span]":
    """Trace the block; of an error only its kind is told, because its sentence may name a person."""
    from opentelemetry.trace import Status, StatusCode

    quiet: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
    with provider.get_tracer("duet").start_as_current_span(name, **quiet, **how) as started:
        try:
            yield started
        except Exception as error:
            started.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
