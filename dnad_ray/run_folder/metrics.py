"""The metrics: name, label, unit and direction of each, in one table (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "Metric", "metric"]


@dataclass(frozen=True)
class Metric:
    """How a column is called, measured and compared.

    Attributes:
        name: Column name in frames, JSON and on the command line.
        label: What an axis or a table header says.
        unit: Unit in words, empty for shares and plain counts.
        minimise: True if less is better, False if more is better, None if the number has no better side.
        format: A :func:`format` specification for tables and hovers.
    """

    name: str
    label: str
    unit: str
    minimise: bool | None
    format: str

    @property
    def axis(self) -> str:
        """Label with the unit, as an axis shows it."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_METRICS = (
    Metric("error", "Proxy error", "share of validation images", True, ".2%"),
    Metric("proxy_accuracy", "Proxy accuracy", "share of validation images", False, ".2%"),
    Metric("test_error", "Test error", "share of test images", True, ".2%"),
    Metric("accuracy", "Test accuracy", "share of test images", False, ".2%"),
    Metric("macs", "MACs", "multiply-adds per image", True, ",.0f"),
    Metric("macs_conv_linear", "MACs of convolutions and classifier", "multiply-adds per image", True, ",.0f"),
    Metric("params", "Parameters", "", True, ",.0f"),
    Metric("num_operations", "Operations", "", True, ",.0f"),
    Metric("device_seconds", "Compute", "seconds", True, ",.1f"),
    Metric("latency_p50", "Latency, median", "milliseconds per batch", True, ".3f"),
    Metric("latency_p90", "Latency, 90th percentile", "milliseconds per batch", True, ".3f"),
    Metric("latency_p99", "Latency, 99th percentile", "milliseconds per batch", True, ".3f"),
    Metric("peak_memory", "Peak memory", "bytes", True, ",.0f"),
    Metric("train_loss", "Training loss", "nats", True, ".4f"),
    Metric("train_accuracy", "Training accuracy", "share of training images", False, ".2%"),
    Metric("score", "Score without training", "", False, ".4g"),
    Metric("jacov", "Jacobian covariance", "", False, ".4g"),
    Metric("naswot", "NASWOT", "", False, ".4g"),
    Metric("synflow", "SynFlow", "", False, ".4g"),
    Metric("grad_norm", "Gradient norm", "", False, ".4g"),
    Metric("zen", "Zen score", "", False, ".4g"),
    Metric("swap", "SWAP", "patterns", False, ",.0f"),
    Metric("zico", "ZiCo", "", False, ".4g"),
    Metric("hypervolume", "Hypervolume", "share of the reference box", False, ".4f"),
    Metric("sparsity", "Sparsity sum S", "", None, ",.2f"),
    Metric("gamma", "Sparsity weight gamma", "", None, ".3g"),
    Metric("mu", "Sparsity offset mu", "", None, ".3g"),
    Metric("shrink_rate", "Shrink rate", "share of candidates per epoch", None, ".3g"),
    Metric("kd_temperature", "KD temperature", "", None, ".3g"),
    Metric("kd_weight", "KD weight", "", None, ".3g"),
    Metric("seed", "Seed", "", None, ".0f"),
    Metric("epoch", "Epoch", "", None, ".0f"),
    Metric("step", "Step", "", None, ",.0f"),
)

METRICS: dict[str, Metric] = {entry.name: entry for entry in _METRICS}
"""Unit, label and direction of every number that is shown anywhere; all axes, columns and tables use it."""


def metric(name: str) -> Metric:
    """Return the entry of ``name``, or a plain one without direction for an unknown column."""
    return METRICS.get(name) or Metric(name, name, "", None, ".4g")
