"""Turn catalogued metrics and numbers into the Prometheus text format; `prometheus_client` stays in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.catalogue import metric
from service.telemetry.counting import Histogram

#: Content type of what `render` returns.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Label values in the order of the catalogue, and the number.
Sample = tuple[Sequence[str], float]


def counter(name: str, samples: Iterable[Sample]) -> Family:
    """Return the counter of that name with *samples*."""
    known = metric(name)
    family = CounterMetricFamily(name, known.help, labels=known.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def gauge(name: str, samples: Iterable[Sample]) -> Family:
    """Return the gauge of that name with *samples*."""
    known = metric(name)
    family = GaugeMetricFamily(name, known.help, labels=known.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def histogram(name: str, samples: Iterable[tuple[Sequence[str], Histogram]]) -> Family:
    """Return the histogram of that name with *samples*."""
    known = metric(name)
    family = HistogramMetricFamily(name, known.help, labels=known.labels)
    for labels, counts in samples:
        family.add_metric(labels, buckets=_as_text(counts), sum_value=counts.sum)
    return family


def _as_text(counts: Histogram) -> list[tuple[str, float]]:
    return [("+Inf" if math.isinf(bound) else repr(bound), count) for bound, count in counts.buckets()]


def render(collect: Callable[[], Iterable[Family]]) -> bytes:
    """Return the exposition of what *collect* yields, followed by the figures of this process."""
    families = (*collect(), *ProcessCollector(registry=None).collect())
    return "".join(line for family in families for line in _lines(family)).encode(errors="replace")


def _lines(family: Family) -> Iterator[str]:
    # Not `generate_latest`: it takes four times as long, in which the manager's loop has to wait for the
    # interpreter. A test compares the two.
    name = f"{family.name}_total" if family.type == "counter" else family.name
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
    for sample in family.samples:
        labels = ",".join([f'{label}="{_escaped(value)}"' for label, value in sample.labels.items()])
        yield f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
