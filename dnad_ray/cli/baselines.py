"""`dnad-ray baselines`: is the search worth it? Chance, DARTS and known networks at equal size and equal training."""

from __future__ import annotations

from typing import Any

import click

from dnad_ray.cli.retrain import leave, training_options

__all__ = ["baselines"]


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--kinds",
    default="random,darts,resnet18,mobilenet_v3_small,efficientnet_b0",
    show_default=True,
    metavar="A,B",
    help="Which baselines.",
)
@click.option("--networks", type=int, default=3, show_default=True, metavar="N", help="Sizes, spread over the front.")
@training_options
def baselines(**options: Any) -> None:
    """Train baselines as wide as networks of a run's front, and these networks too, all by one protocol.

    Results stand beside those of `dnad-ray retrain`; what was trained already is not trained again.
    """
    from analysis import to_records
    from analysis.comparison import compare_front, compare_network
    from dnad_ray.commands.baselines import baselines as run

    outcome = run(**options)
    leave(outcome, options["quiet"])
    records = [] if outcome.front is None else to_records(outcome.front)
    for line in [*compare_network(records), *compare_front(records)]:
        click.echo(line)
