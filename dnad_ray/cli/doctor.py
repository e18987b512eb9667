"""`dnad-ray doctor`: what is installed, what the machine offers, what is missing for which command."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dnad_ray.runtime.installation import Finding

__all__ = ["doctor"]


@click.command()
@click.option("--ray", "starts_ray", is_flag=True, help="Start Ray on this machine too, and stop it again.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(starts_ray: bool, as_json: bool) -> None:
    """Say what is installed, what this machine offers, and what is missing for which command.

    Exit code 1: commands fail or are slow because of something that is found here.
    """
    from dnad_ray.runtime.installation import examined

    findings = [*examined(Path.cwd()), *([_ray()] if starts_ray else [])]
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            mark = "[red]![/]" if finding.is_problem else "[yellow]-[/]" if finding.advice else "[green]+[/]"
            table.add_row(mark, finding.name, escape(finding.found), escape(finding.advice))
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    if any(finding.is_problem for finding in findings):
        sys.exit(1)


def _ray() -> Finding:
    from dnad_ray.config.recipes import recipe_named
    from dnad_ray.errors import DnadRayError
    from dnad_ray.on_ray.cluster import cluster, nodes
    from dnad_ray.runtime.installation import Finding

    began = time.monotonic()
    try:
        with cluster(recipe_named("smoke"), None):
            offered = nodes()
    except DnadRayError as error:
        return Finding("start of Ray", "failed", str(error), is_problem=True)
    seconds = time.monotonic() - began
    return Finding(
        "start of Ray",
        f"{seconds:.0f} s; {sum(node.cpus for node in offered):.0f} CPUs, "
        f"{sum(node.gpus for node in offered):.0f} GPUs",
    )
