"""`dnad-ray baselines`: random networks, DARTS and well-known networks, with the sizes and training of the front."""

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
    help="Kinds of baselines.",
)
@click.option("--networks", type=int, default=3, show_default=True, metavar="N", help="Networks of the front.")
@training_options
def baselines(**options: Any) -> None:
    """Train networks of a run's front, and baselines of the same sizes, all by one protocol.

    The networks are taken from all parts of the front. Results are stored with those of `dnad-ray retrain`. Networks
    that are trained already are not trained again.
    """
    from analysis import to_records
    from analysis.comparison import compare_front, compare_network
    from dnad_ray.commands.baselines import baselines as run

    outcome = run(**options)
    leave(outcome, options["quiet"])
    records = [] if outcome.front is None else to_records(outcome.front)
    for line in [*compare_network(records), *compare_front(records)]:
        click.echo(line)
