"""What a run records: snapshots, epochs, retrained networks and measurements (standard library only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from dnad_ray.run_folder.fields import checked

__all__ = [
    "BASELINE_ORIGINS",
    "MEASUREMENT_COLUMNS",
    "ORIGINS",
    "RETRAINED_COLUMNS",
    "SNAPSHOT_COLUMNS",
    "EpochReport",
    "Measurement",
    "Retrained",
    "Snapshot",
]

SnapshotKind = Literal["pruned", "pareto", "final", "ladder"]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One network that a search recorded. A record is complete when it is made, and never changes.

    Attributes:
        run: Name of the run folder.
        trial: Name of the trial in the run.
        seed: Seed of the trial.
        step: Optimisation steps taken when the network was recorded; with trial and rung it is the record's key.
        epoch: Passes over the training data begun by then (1-based).
        kind: ``pruned`` (operations were deleted since the last record), ``pareto`` (the controller stalled: no
            further shrinking at no loss under that pressure), ``final``, or ``ladder`` (one of several sizes that the
            weights imply: the search itself is larger).
        digest: Digest of the genotype, see :class:`search_spaces.genotype.Genotype`.
        num_operations: Operations alive in the derived network.
        macs: fvcore's total for one image: convolutions, linear layers, batch norms and pools as fvcore counts them.
        macs_conv_linear: The convolution and linear part of ``macs``: what papers call FLOPs.
        params: Parameters of the derived network, without auxiliary head.
        proxy_accuracy: Share of the held-out validation images that the supernet classifies correctly with its
            shared weights; not the accuracy of a retrained network. Of a ``ladder`` that of a few of these images.
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
        in_channels: Channels of the images, for which costs were counted; 0 in a record of a version that did not say.
        rung: Rung of a ladder from 1, the smallest network; 0 for the network of the search itself.
        score: What ranks the networks of a run without training (:func:`dnad_ray.networks.scores.rank_score`); more is
            better. Scores are those of the derived network with initial weights, at the width of the supernet. None if
            it was not computed.
        jacov: See :mod:`dnad_ray.networks.scores`, which has the sources; None if it was not computed.
        naswot: Likewise.
        synflow: Likewise.
        grad_norm: Likewise.
        zen: Likewise.
        swap: Likewise.
        zico: Likewise.
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
    in_channels: int = 0
    rung: int = 0
    score: float | None = None
    jacov: float | None = None
    naswot: float | None = None
    synflow: float | None = None
    grad_norm: float | None = None
    zen: float | None = None
    swap: float | None = None
    zico: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Snapshot:
        """Build a snapshot from :meth:`to_dict`; ignores unknown fields.

        Raises:
            KeyError: If a field is missing that has no default.
            TypeError: If a field is of another type, or a number is out of bounds.
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
        free_share: Share of the operations of the derived network that learn nothing, skips and pools; None likewise.
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
    free_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EpochReport:
        """Build a report from :meth:`to_dict`; ignores unknown fields, raises as :meth:`Snapshot.from_dict` does."""
        return cls(**checked(cls, data))


BASELINE_ORIGINS = ("random", "darts", "torchvision")
"""Origins of retrained networks that stand beside a front, and are not part of it."""

ORIGINS = ("search", "genotype", "plain", *BASELINE_ORIGINS)
"""Where a retrained network came from: a front, a file of the user, the plain networks of a space, or a baseline."""


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """One network that was trained by one protocol under one seed, and then measured once.

    Attributes:
        run: Name of the run folder.
        job: Name of the job's folder below ``retrained``.
        origin: One of :data:`ORIGINS`.
        model: ``genotype``, or the family of torchvision.
        digest: Digest of the genotype; of a torchvision network one of its family and width.
        recipe: Name of the recipe that the settings began with.
        protocol: Digest of all settings but seed and network: networks of one protocol were trained alike.
        seed: Seed of initial weights, order of images and augmentation.
        epochs: Passes over the training images.
        init_channels: Width C of a genotype's network, 0 of others.
        width: Width factor of a torchvision network, 1 of others.
        num_cells: Cells, 0 of torchvision networks.
        num_operations: Operations alive, likewise.
        dataset: Name of the dataset.
        image_size: Side of the images in pixels.
        num_classes: Classes.
        macs: fvcore's total for one image, without auxiliary head.
        macs_conv_linear: Its convolution and linear part.
        params: Parameters without auxiliary head.
        counter: Which counter and convention made ``macs``.
        proxy_accuracy: Best proxy accuracy of the digest among the run's snapshots; None where there is none.
        accuracy: Share of the images of ``split`` that the trained network classifies correctly.
        split: ``test``, or ``validation`` where the data have no test images.
        num_images: Images of that split.
        train_loss: Mean task loss of the last epoch, in nats.
        train_accuracy: Training accuracy of the last epoch, on augmented images.
        inherited: Whether training began with weights of a supernet: not from scratch.
        ema: Whether the weights are moving averages.
        kd: Whether a teacher was imitated.
        device: Kind of device.
        device_seconds: Wall seconds of training and measuring times the devices used.
        images: Fingerprint of the images, :attr:`dnad_ray.run_folder.images.ImagesRecord.digest`; empty in a record of
            a version that did not say.
    """

    run: str
    job: str
    origin: str
    model: str
    digest: str
    recipe: str
    protocol: str
    seed: int
    epochs: int
    init_channels: int
    width: float
    num_cells: int
    num_operations: int
    dataset: str
    image_size: int
    num_classes: int
    macs: int
    macs_conv_linear: int
    params: int
    counter: str
    proxy_accuracy: float | None
    accuracy: float
    split: str
    num_images: int
    train_loss: float
    train_accuracy: float
    inherited: bool
    ema: bool
    kd: bool
    device: str
    device_seconds: float
    images: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Retrained:
        """Build a record from :meth:`to_dict`; ignores unknown fields.

        Raises:
            KeyError: If a field is missing that has no default.
            TypeError: If a field is of another type.
        """
        return cls(**checked(cls, data))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency and memory of one network on one machine.

    Attributes:
        run: Name of the run folder.
        digest: As in :class:`Retrained`.
        model: Likewise.
        init_channels: Likewise.
        width: Likewise.
        image_size: Side of the images in pixels.
        batch_size: Images per batch.
        device: Kind of device.
        device_name: The processor or GPU by name, with the runtime behind it where that is not torch.
        threads: Threads on a CPU.
        repeats: Batches that were timed, after a warm-up.
        latency_p50: Median of their times in milliseconds.
        latency_p90: 90th percentile.
        latency_p99: 99th percentile.
        peak_memory: Most bytes that tensors took at one time: weights, images and activations.
    """

    run: str
    digest: str
    model: str
    init_channels: int
    width: float
    image_size: int
    batch_size: int
    device: str
    device_name: str
    threads: int
    repeats: int
    latency_p50: float
    latency_p90: float
    latency_p99: float
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measurement:
        """Build a record from :meth:`to_dict`; raises as :meth:`Retrained.from_dict` does."""
        return cls(**checked(cls, data))


RETRAINED_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Retrained))
"""Keys of a ``result.json``, in order."""

MEASUREMENT_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Measurement))
"""Keys of a file below ``measured``, in order."""
