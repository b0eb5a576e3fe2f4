"""Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Usage(NamedTuple):
    """Memory and CPU time of processes; memory that they share counts for each. `restarts`: of those that had ended."""

    resident_bytes: int
    cpu_seconds: float
    restarts: int = 0


@runtime_checkable
class MeasuresUsage(Protocol):
    """A reader with processes of its own."""

    @property
    def usage(self) -> Usage: ...


class Metrics:
    """The metrics of one application, in their own registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=SECONDS, registry=registry)
        self.requests = counter("str_app_requests", "Requests answered.", ["route", "method", "code"])
        self.in_flight = gauge("str_app_requests_in_flight", "Requests being answered.")
        self.rejections = counter("str_app_rejections", "Requests rejected, by error code.", ["reason"])
        self.images = counter(
            "str_app_images", "Images by outcome: read, or an error code; abandoned counts views.", ["outcome"]
        )
        self.queue_depth = gauge("str_app_queue_depth", "Views of images waiting for the model; most images have one.")
        self.pending = gauge("str_app_pending_images", "Images accepted and not yet answered.")
        self.ready = gauge("str_app_ready", "1 when the model is warm and the server is not draining.")
        self.request_seconds = seconds("str_app_request_seconds", "Time from request to response.", ["route"])
        self.decode_queue_seconds = seconds(
            "str_app_decode_queue_seconds", "Time one image waits for a decoding thread."
        )
        self.decode_seconds = seconds("str_app_decode_seconds", "Time to decode one image.")
        self.queue_seconds = seconds("str_app_queue_seconds", "Time one image waits for the model.")
        self.inference_seconds = seconds("str_app_inference_seconds", "Time to read one batch.")
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batch_size = Histogram("str_app_batch_size", "Images in a batch.", buckets=sizes, registry=registry)
        self.reloads = counter("str_app_reloads", "Reloads of the weights, by outcome.", ["outcome"])
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)  # start at 0, so that `increase` sees the first one
        self.model = Info("str_app_model", "The model in use.", registry=registry)
        self.model_usage: Callable[[], Usage] = lambda: Usage(0, 0.0)
        ProcessCollector(registry=registry)
        registry.register(_UsageCollector(self))

    def text(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


class _UsageCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        usage = self._metrics.model_usage()
        memory, cpu = "Resident memory of the model processes.", "CPU time of the model processes, ended ones included."
        restarts = "Model processes that ended unexpectedly and were replaced."
        yield GaugeMetricFamily("str_app_model_resident_bytes", memory, usage.resident_bytes)
        yield CounterMetricFamily("str_app_model_cpu_seconds", cpu, usage.cpu_seconds)
        yield CounterMetricFamily("str_app_model_process_restarts", restarts, usage.restarts)
