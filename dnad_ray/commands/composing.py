"""A network for a budget that no search recorded one for: composed from those around it, without searching again."""

from __future__ import annotations

from typing import Any, NamedTuple

from dnad_ray.commands.deploy import Under, budgets_of
from dnad_ray.commands.options import AnyPath
from dnad_ray.config.run import config_from_dict
from dnad_ray.config.section import Words
from dnad_ray.costs.table import costs_of
from dnad_ray.costs.trace import Complexity
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.networks.search_space import space_of
from dnad_ray.retrain.composing import composed, shares_of
from dnad_ray.run_folder.layout import config_file, genotype_file
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import RunContents, read_genotype, read_run
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, absolute, address, place
from search_spaces.shape import ImageShape, NetworkShape

__all__ = ["Composed", "compose"]

_COSTS = ("macs", "params")


class Composed(NamedTuple):
    """A new network.

    Attributes:
        file: Its genotype, in the run folder.
        digest: Its digest.
        macs: Its multiply-adds, at the width of the records.
        params: Its parameters there.
        smaller: The record of the network that it was made of, which is within the budget.
        larger: The record of the one that its edges came from, which is not.
        data: The images of the run: the name of a dataset, or their folder.
    """

    file: Place
    digest: str
    macs: int
    params: int
    smaller: dict[str, Any]
    larger: dict[str, Any]
    data: str


def compose(run: AnyPath, under: Under) -> Composed:
    """Compose a network for a budget between those that a run recorded, and keep its genotype in the run folder.

    Of each trial, the largest network within the budget and the smallest one beyond it are neighbours. Of the trial
    whose neighbours have the lowest proxy error in the mean, the smaller one gets edges of the larger one, those first
    that most networks of the run have, as long as they fit. Nothing is trained; the network has no error yet.

    Args:
        run: The run folder.
        under: Most multiply-adds and parameters at the width of the records, ``{"macs": "12.3M"}``.

    Raises:
        UserError: If the budget is not between two recorded networks, is of another metric, or in the space of the run
            edges cannot be added one by one.
    """
    folder, limits = absolute(place(run)), budgets_of(under)
    for name in limits:
        if name not in _COSTS:
            raise ConfigError("--under", name, f"{' and '.join(_COSTS)}, for which networks are composed")
    if not limits:
        raise ConfigError("--under", "nothing", "a budget of the new network, macs=12.3M")
    contents = read_run(folder)
    config = config_from_dict(contents.config, address(config_file(folder)))
    space = space_of(config.space)
    if space.derivation != "alive" or space.sharing != "cell":
        allowed = "a run in a space whose cells have topologies of their own and keep all alive operations"
        raise RunFolderError("RUN", address(folder), allowed)
    smaller, larger = _neighbours(contents, limits)
    if not smaller["in_channels"]:
        raise RunFolderError("RUN", address(folder), "a run whose records say the channels of its images")
    shape = NetworkShape(
        images=ImageShape.from_dict(smaller), init_channels=smaller["init_channels"], stem=config.space.stem
    )
    recorded = [read_genotype(folder, digest) for digest in sorted({row["digest"] for row in contents.snapshots})]
    genotype = composed(
        read_genotype(folder, smaller["digest"]).pruned(),
        read_genotype(folder, larger["digest"]).pruned(),
        shares_of(recorded),
        lambda tried: _is_within(costs_of(tried, shape), limits),
    )
    cost = costs_of(genotype, shape)
    file = genotype_file(folder, genotype.digest)
    if not file.exists():
        with writing_to(folder):
            write_bytes(file, genotype.to_json().encode())
    data = config.data.root if config.data.name == "imagefolder" else config.data.name
    return Composed(file, genotype.digest, cost.macs, cost.params, smaller, larger, str(data))


def _neighbours(contents: RunContents, limits: dict[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the records of the best trial that are nearest to the budget, below and above it."""
    trials: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for row in contents.snapshots:
        is_within = all(row[name] <= limit for name, limit in limits.items())
        trials.setdefault(row["trial"], ([], []))[not is_within].append(row)
    pairs = [
        (max(fitting, key=lambda row: row["macs"]), min(others, key=lambda row: row["macs"]))
        for _, (fitting, others) in sorted(trials.items())
        if fitting and others
    ]
    if not pairs:
        name = next(iter(limits))
        ends = sorted(row[name] for row in contents.snapshots)
        between = (
            f"between {ends[0]:,} and {ends[-1]:,} {name}, what trials recorded" if ends else "a run with networks"
        )
        raise ConfigError("--under", Words(", ".join(f"{key}={limit:g}" for key, limit in limits.items())), between)
    return min(pairs, key=lambda pair: -sum(row["proxy_accuracy"] for row in pair))


def _is_within(cost: Complexity, limits: dict[str, float]) -> bool:
    return all(getattr(cost, name) <= limit for name, limit in limits.items())
