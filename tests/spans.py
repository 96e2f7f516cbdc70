"""Traces kept in memory, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.settings import Settings, TracingSettings
from infra.tracing import start_tracing, stop_tracing


class Spans:
    """What was traced."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def names(self) -> set[str]:
        """Return the names of all spans."""
        return {span.name for span in self._exporter.get_finished_spans()}

    def below(self, span: ReadableSpan) -> set[str]:
        """Return the names of the spans directly below one."""
        return {
            one.name
            for one in self._exporter.get_finished_spans()
            if one.parent is not None and span.context is not None and one.parent.span_id == span.context.span_id
        }

    def text(self) -> str:
        """Return everything that is told of all spans."""
        return "".join(span.to_json() for span in self._exporter.get_finished_spans())


@contextmanager
def traced(share: float = 1.0) -> Iterator[Spans]:
    """Trace for the length of the block."""
    exporter = InMemorySpanExporter()
    start_tracing(Settings(tracing=TracingSettings(share=share)), "test", SimpleSpanProcessor(exporter))
    try:
        yield Spans(exporter)
    finally:
        stop_tracing()
