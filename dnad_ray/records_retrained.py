"""What becomes of networks after a search: trained from scratch, and measured on a machine (standard library only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from dnad_ray.records import checked

__all__ = ["MEASUREMENT_COLUMNS", "ORIGINS", "RETRAINED_COLUMNS", "Measurement", "Retrained"]

ORIGINS = ("search", "genotype", "random", "darts", "torchvision")
"""Where a retrained network came from: a front, a file of the user, or one of three kinds of baselines."""


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Retrained:
        """Build a record from :meth:`to_dict`; ignores unknown fields.

        Raises:
            KeyError: If a field is missing.
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
        device_name: The processor or GPU by name.
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
