"""What a search finds: the snapshot record, and the one table of metrics (standard library only)."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["METRICS", "SNAPSHOT_COLUMNS", "EpochReport", "Metric", "Snapshot", "checked", "metric"]

SnapshotKind = Literal["pruned", "pareto", "final"]

# Annotations that are not those of text, and what plain data has in their place.
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "dict[str, list[float]] | None": (dict, type(None)),
}


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
"""Unit, label and direction of every number that is shown anywhere; every axis, column and table asks it."""


def metric(name: str) -> Metric:
    """Return the entry of ``name``, or a plain one without direction for a column the table does not know."""
    return METRICS.get(name) or Metric(name, name, "", None, ".4g")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One network that a search left behind while it shrank; born complete, never changed.

    Attributes:
        run: Name of the run folder.
        trial: Name of the trial in the run.
        seed: Seed of the trial.
        step: Optimisation steps taken when the network was recorded; with the trial it is the record's key.
        epoch: Passes over the training data begun by then (1-based).
        kind: ``pruned`` (operations were deleted since the last record), ``pareto`` (the controller stalled: no
            further shrinking at no loss under that pressure), or ``final``.
        digest: Digest of the genotype, see :class:`search_spaces.genotype.Genotype`.
        num_operations: Operations alive in the derived network.
        macs: fvcore's total for one image: convolutions, linear layers, batch norms and pools as fvcore counts them.
        macs_conv_linear: The convolution and linear part of ``macs``: what papers call FLOPs.
        params: Parameters of the derived network, without auxiliary head.
        proxy_accuracy: Share of the held-out validation images that the supernet classifies correctly with its
            shared weights; not the accuracy of a retrained network.
        train_loss: Mean task loss of the steps since the last epoch report, in nats; None before the first step.
        train_accuracy: Training accuracy over the same steps, on augmented images.
        shrink_rate: Target share of the initial candidates deleted per epoch.
        kd_kind: Imitation kind.
        kd_temperature: KD temperature, None where the kind has none.
        kd_weight: KD weight lambda.
        gamma: Sparsity weight at that step.
        mu: Offset factor of the sparsity term at that step.
        sparsity: Sparsity sum S at that step.
        device_seconds: Compute spent by the trial up to here: wall seconds of training, scoring and counting times
            the devices used.
        device: Kind of device the trial ran on.
        dataset: Name of the dataset.
        image_size: Side of the images in pixels, for which costs were counted.
        num_classes: Classes of the derived network.
        init_channels: Width C of the derived network (before the first doubling).
        counter: Which counter and convention made ``macs``, for example ``fvcore-0.1.5 total, eval``.
        costs_traced: Whether the counter's trace of this very network confirmed ``macs``, ``macs_conv_linear`` and
            ``params``; otherwise they are the sum over a table that the counter filled, or the record is of a version
            that did not say.
    """

    run: str
    trial: str
    seed: int
    step: int
    epoch: int
    kind: SnapshotKind
    digest: str
    num_operations: int
    macs: int
    macs_conv_linear: int
    params: int
    proxy_accuracy: float
    train_loss: float | None
    train_accuracy: float | None
    shrink_rate: float
    kd_kind: str
    kd_temperature: float | None
    kd_weight: float
    gamma: float
    mu: float
    sparsity: float
    device_seconds: float
    device: str
    dataset: str
    image_size: int
    num_classes: int
    init_channels: int
    counter: str
    costs_traced: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Snapshot:
        """Build a snapshot from :meth:`to_dict`; ignores unknown fields.

        Raises:
            KeyError: If a field is missing that has no default.
            TypeError: If a field is of another type.
        """
        return cls(**checked(cls, data))


SNAPSHOT_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Snapshot))
"""Columns of ``snapshots.parquet``, in order."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """State of a search at the end of an epoch: what progress bars and trajectories show.

    Attributes:
        step: Optimisation steps taken.
        epoch: Epochs completed.
        num_operations: Operations alive, as the derived network has them.
        train_loss: Mean task loss of the epoch, in nats.
        train_accuracy: Training accuracy of the epoch, on augmented images.
        kd_loss: Mean imitation loss of the epoch before its weight; None without imitation.
        gamma: Sparsity weight.
        mu: Offset factor of the sparsity term.
        sparsity: Sparsity sum S.
        device_seconds: Compute spent so far.
        operation_weights: For each operation its architecture weight by cell: the mean over the cell's nodes of the
            sum of the weights ``w`` of its edges into the node, so that the operations of a cell add up to 1. None in
            records of versions that did not keep it.
    """

    step: int
    epoch: int
    num_operations: int
    train_loss: float
    train_accuracy: float
    kd_loss: float | None
    gamma: float
    mu: float
    sparsity: float
    device_seconds: float
    operation_weights: dict[str, list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EpochReport:
        """Build a report from :meth:`to_dict`; ignores unknown fields, raises as :meth:`Snapshot.from_dict` does."""
        return cls(**checked(cls, data))


def checked(record: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record among plain data; unknown ones are left out.

    Raises:
        KeyError: If a field is missing that has no default.
        TypeError: If a field is of another type.
    """
    # A field with a default came later than the others: records that were stored before lack it.
    given = {field.name: field.default for field in fields(record) if field.default is not MISSING} | data
    values = {field.name: given[field.name] for field in fields(record)}
    for field in fields(record):
        value = values[field.name]
        fits = isinstance(value, _TYPES.get(str(field.type), (str,)))
        if isinstance(value, bool):  # an int to Python, but no number
            fits = field.type == "bool"
        if isinstance(value, dict):
            fits = fits and _are_shares(value)
        if not fits or (isinstance(value, int) and abs(value) >= 2**63):  # columns have 64 bits
            raise TypeError(f"{field.name} is {value!r}, not of type {field.type}")
    return values


def _are_shares(weights: dict[Any, Any]) -> bool:
    """Whether a mapping is one of texts to lists of numbers from 0 to 1, no more than a supernet has."""
    return len(weights) <= 100 and all(
        isinstance(name, str)
        and len(name) <= 100
        and isinstance(values, list)
        and len(values) <= 200
        and all(type(value) in (int, float) and 0 <= value <= 1.001 for value in values)
        for name, values in weights.items()
    )
