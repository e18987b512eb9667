"""`dnad-ray recipes` and `dnad-ray config`: the named configurations."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

__all__ = ["config", "recipes"]


@click.command()
def recipes() -> None:
    """List the named configurations."""
    from dnad_ray.config.recipes import RECIPES, summary_of

    table = Table("recipe", "what it is", box=None)
    for name in RECIPES:
        table.add_row(name, summary_of(name))
    Console().print(table)


@click.command()
@click.argument("recipe")
def config(recipe: str) -> None:
    """Print a recipe as YAML, as a start for your own configuration."""
    import yaml

    from dnad_ray.config.recipes import recipe_named
    from dnad_ray.config.run import config_to_dict

    click.echo(yaml.safe_dump(config_to_dict(recipe_named(recipe)), sort_keys=False), nl=False)
