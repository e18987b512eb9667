"""Genotypes that a user names: a file in any of the field's forms, a shipped one, or a front with its genotypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dnad_ray.errors import RunFolderError, UserError, one_line
from dnad_ray.run_folder.reading import read_genotype
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import read_file
from dnad_ray.storage.places import Place, address, place
from search_spaces.formats import parse_any_genotype
from search_spaces.genotype import MAX_BYTES, Genotype
from search_spaces.json_reader import MAX_BYTES as MAX_JSON_BYTES
from search_spaces.published import published, published_named

__all__ = ["NamedGenotype", "found_in_file", "found_in_front", "read_any_genotype"]


@dataclass(frozen=True)
class NamedGenotype:
    """A genotype and what its source records about it.

    Attributes:
        genotype: The topology.
        origin: ``search`` for one of a front, ``genotype`` for a file.
        proxy_accuracy: On the front, None for a file.
        init_channels: Width at which the front counted it, None for a file.
        image_size: Side of the images that the front counted it for, None for a file.
        num_classes: Classes of the search, None for a file.
        in_channels: Channels of its images, None for a file, and for a front of a version that did not say.
        trial: The trial that recorded it, empty for a file.
        step: The step at which it did.
    """

    genotype: Genotype
    origin: str
    proxy_accuracy: float | None = None
    init_channels: int | None = None
    image_size: int | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    trial: str = ""
    step: int = 0


def found_in_file(path: Place, num_cells: int | None = None) -> list[NamedGenotype]:
    """Read a file that is a genotype, or a front whose genotypes lie beside it or in it.

    Args:
        path: The file, or the name of a shipped network.
        num_cells: As for :func:`read_any_genotype`.

    Raises:
        UserError: If it is neither.
    """
    try:
        content = read_file(path, MAX_JSON_BYTES, follow_links=True)
    except FileNotFoundError:
        try:
            return [
                NamedGenotype(read_any_genotype(path, num_cells), "genotype")
            ]  # it may be the name of a shipped one
        except RunFolderError:
            allowed = "a run folder, a front.json, a genotype file, or a name that `dnad-ray published` lists"
            raise RunFolderError("SOURCE", address(path), allowed) from None
    except OSError as error:
        raise RunFolderError("SOURCE", address(path), "a run folder, a front.json, or a genotype file") from error
    if content.lstrip()[:1] == b"[":
        records = parse_record(content, address(path))
        if not all(isinstance(record, list) for record in records) or not records:  # else the parts of a genotype
            return found_in_front(records, path.parent, address(path))
    return [NamedGenotype(read_any_genotype(path, num_cells), "genotype")]


def found_in_front(records: list[Any], folder: Place, origin: str) -> list[NamedGenotype]:
    """Return the networks of a front, each digest once, the best-scored record of it.

    Args:
        records: What ``front.json`` holds.
        folder: The run folder, with the genotypes.
        origin: Where the records came from, for error messages.

    Raises:
        RunFolderError: If a record has no digest, its genotype cannot be read, or there are no records.
    """
    best: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records, 1):
        digest = record.get("digest") if isinstance(record, dict) else None
        if not isinstance(digest, str):
            given = f"{type(record).__name__} without a digest"
            raise RunFolderError(f"{origin}, record {number}", given, "a record of a front, with a genotype's digest")
        score = record.get("proxy_accuracy")
        if digest not in best or _number(score) > _number(best[digest].get("proxy_accuracy")):
            best[digest] = record
    if not best:
        raise RunFolderError("front", origin, "a front with at least one network")
    return [_found(digest, record, folder, origin) for digest, record in best.items()]


def _found(digest: str, record: dict[str, Any], folder: Place, origin: str) -> NamedGenotype:
    try:
        if isinstance(record.get("genotype"), dict):
            genotype = Genotype.from_dict(record["genotype"], f"{origin}, genotype")
            if genotype.digest != digest:
                raise RunFolderError("genotype", genotype.digest, f"{digest}, as its record says")
        else:
            genotype = read_genotype(folder, digest)
    except UserError as error:
        raise RunFolderError(
            "front",
            f"{origin}, whose network {digest} has no genotype ({one_line(error)[:200]})",
            "a front.json in its run folder, with genotypes/<digest>.json beside it",
        ) from error
    numbers = {name: record.get(name) for name in ("init_channels", "image_size", "num_classes", "in_channels")}
    return NamedGenotype(
        genotype,
        "search",
        proxy_accuracy=None if record.get("proxy_accuracy") is None else _number(record["proxy_accuracy"]),
        **{name: value if isinstance(value, int) and value > 0 else None for name, value in numbers.items()},
        trial=str(record.get("trial", "")),
        step=int(_number(record.get("step", 0))),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0


def read_any_genotype(path: str | Place, num_cells: int | None = None) -> Genotype:
    """Read a genotype in any form of :mod:`search_spaces.formats`.

    Args:
        path: A file, or the name of a shipped one (see :mod:`search_spaces.published`) where no such file is.
        num_cells: Cells of a network whose form does not say how many; None takes what is usual on CIFAR.

    Raises:
        GenotypeError: If the content is no genotype.
        RunFolderError: If there is no such file, and none of this name is shipped.
    """
    file = place(path, "genotype")
    try:
        content = read_file(file, MAX_BYTES, follow_links=True)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and str(path) in published():
            return published_named(str(path)).genotype(num_cells)
        allowed = "a readable genotype file, or a name that `dnad-ray published` lists"
        raise RunFolderError("genotype", address(file), allowed) from error
    return parse_any_genotype(content, address(file), num_cells)
