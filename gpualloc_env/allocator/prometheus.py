"""Decisions and fallbacks of an allocator as metrics of Prometheus; needs the extra `prometheus`."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false

from collections.abc import Iterator
from typing import Any

from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.shadow import Shadow


class AllocatorCollector:
    """Reads an allocator's counts whenever Prometheus asks: nothing is added to a decision."""

    def __init__(self, allocator: Allocator, shadow: Shadow | None = None, registry: Any = None) -> None:
        """Register `gpualloc_decisions_total`, `gpualloc_fallbacks_total` and `gpualloc_shadow_errors_total`.

        Args:
            allocator: whose counts to show.
            shadow: of it, where it runs in one.
            registry: a `prometheus_client.CollectorRegistry`; by default the process's own.

        Raises:
            ImportError: prometheus-client is not installed.
        """
        import prometheus_client

        self._allocator, self._shadow = allocator, shadow
        (registry or prometheus_client.REGISTRY).register(self)

    def collect(self) -> Iterator[Any]:
        """The counts as they are now."""
        from prometheus_client.core import CounterMetricFamily as Counts

        decisions: Any = Counts("gpualloc_decisions", "Decisions taken.")
        decisions.add_metric([], self._allocator.decisions)
        what = "Decisions that the network did not take, by reason and by who took them."
        fallbacks: Any = Counts("gpualloc_fallbacks", what, labels=["reason", "by"])
        for (reason, by), count in dict(self._allocator.fallbacks).items():
            fallbacks.add_metric([reason, by], count)
        yield from (decisions, fallbacks)
        if self._shadow is not None:
            errors: Any = Counts("gpualloc_shadow_errors", "Decisions that could not be logged.")
            errors.add_metric([], self._shadow.errors)
            yield errors
