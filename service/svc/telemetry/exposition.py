"""Turns catalogued metrics and numbers into the Prometheus text format.

Only this module uses `prometheus_client`. The text is made directly from the numbers: the samples of
`prometheus_client`, with an object for each line, take ten times as long, and the manager's loop has to wait
for the interpreter meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric as TheirFamily
from prometheus_client.process_collector import ProcessCollector

from svc.telemetry.catalogue import Metric

#: Content type of an exposition.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def number_family(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> str:
    """Return the text of a counter or gauge: two comment lines, then a line for each sample."""
    lines = [_line(metric.name, _labels(metric.labels, values), number) for values, number in samples]
    return "".join([_head(metric), *lines])


def histogram_family(
    metric: Metric, samples: Iterable[tuple[Sequence[str], Sequence[tuple[float, int]], float]]
) -> str:
    """Return the text of a histogram; a sample has its label values, buckets and sum."""
    name, lines = metric.name, [_head(metric)]
    bounds = _bounds(metric.buckets)
    for values, buckets, total in samples:
        labels = _labels(metric.labels, values)
        before = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
        numbers = [number for _, number in buckets]
        lines += [f'{before}le="{bound}"}} {number}\n' for bound, number in zip(bounds, numbers, strict=True)]
        lines.append(_line(f"{name}_sum", labels, total))
        lines.append(_line(f"{name}_count", labels, numbers[-1]))
    return "".join(lines)


def of_this_process() -> Iterator[str]:
    """Yield the metrics of this process that `prometheus_client` collects."""
    for family in ProcessCollector(registry=None).collect():
        yield "".join(_their_lines(family))


def _head(metric: Metric) -> str:
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"


def _line(name: str, labels: str, number: float) -> str:
    return f"{name}{{{labels}}} {number}\n" if labels else f"{name} {number}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@functools.cache
def _bounds(buckets: tuple[float, ...]) -> list[str]:
    return [*map(repr, buckets), "+Inf"]


def _their_lines(family: TheirFamily) -> Iterator[str]:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
    for sample in family.samples:
        yield _line(sample.name, _labels(list(sample.labels), list(sample.labels.values())), sample.value)
