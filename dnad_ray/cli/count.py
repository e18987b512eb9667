"""`dnad-ray count`, `published`, `spaces` and `draw`: count, list and draw networks, also published ones."""

from __future__ import annotations

import contextlib
import json
import sys
from html import escape as escape_html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dnad_ray.errors import ConfigError, UserError
from dnad_ray.text import printable

# Importing torch takes seconds, so only the commands that need it import it.
if TYPE_CHECKING:
    from dnad_ray.costs.conventions import Setting
    from search_spaces.genotype import Genotype

__all__ = ["count", "draw", "published", "spaces"]

_MEANING = {
    "params": "parameters, auxiliary head excluded",
    "macs_conv_linear": "multiply-adds of convolutions and linear layers, which most papers call FLOPs",
    "fvcore_total": "fvcore's total: and 2 per batch-norm element, 1 per input of an adaptive pool",
}


@click.command()
@click.argument("genotype", metavar="GENOTYPE.json|NAME")
@click.option("--setting", type=click.Choice(["cifar10", "imagenet"]), default="cifar10", show_default=True)
@click.option("--init-channels", type=click.IntRange(2, 512), metavar="C", help="Channels before the first doubling.")
@click.option("--cells", type=int, metavar="N", help="Number of cells, if the genotype does not contain it.")
@click.option("--classes", type=click.IntRange(1, 100_000), metavar="K", help="Number of classes.")
@click.option("--image-size", type=click.IntRange(1, 1024), metavar="N", help="Side of the images in pixels.")
@click.option(
    "--in-channels",
    type=click.IntRange(1, 3),
    metavar="N",
    help="Channels of the images: 1 for gray ones.  [default: 3]",
)
@click.option("--conventions", "all_conventions", is_flag=True, help="Show the counts of all conventions.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def count(genotype: str, setting: str, all_conventions: bool, as_json: bool, **options: Any) -> None:
    """Count parameters and multiply-adds of a network, in eval mode and without auxiliary head.

    GENOTYPE.json has one of the common formats: that of dnad-ray, DARTS with normal and reduction cells, or a string
    of NAS-Bench-201. NAME is a name from `dnad-ray published`.
    """
    from dnad_ray.costs.conventions import SETTINGS, conventions_of, elements_of
    from dnad_ray.run_folder.genotypes import read_any_genotype

    cells = options["cells"]
    network = read_any_genotype(genotype, cells)
    usual = SETTINGS.get((setting, network.skeleton))
    if usual is None:
        raise ConfigError("--setting", setting, f"cifar10 for a network of the skeleton {network.skeleton}")
    if cells is None and len(network.cells) != usual.num_cells:
        network = read_any_genotype(genotype, usual.num_cells)
    if cells is not None and len(network.cells) != cells:
        raise ConfigError("--cells", cells, f"{len(network.cells)}, the cells of this genotype, or no --cells")
    given = {
        "init_channels": options["init_channels"],
        "num_classes": options["classes"],
        "image_size": options["image_size"],
        "in_channels": options["in_channels"],
    }
    used = usual._replace(
        num_cells=len(network.cells), **{name: value for name, value in given.items() if value is not None}
    )
    facts = _count(genotype, network, setting, used)
    if all_conventions:
        facts["conventions"] = conventions_of(elements_of(network, used.shape()))
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        _print_count(facts)


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, including genotypes.")
def published(name: str | None, as_json: bool) -> None:
    """List the published networks that are included, with their published and our own counts.

    With NAME, print the genotype of this network in the format of its publication.
    """
    from dnad_ray.costs.conventions import SETTINGS
    from search_spaces.published import published as shipped
    from search_spaces.published import published_named

    if name is not None and not as_json:
        click.echo(json.dumps(published_named(name).form, indent=1))
        return
    rows = []
    for entry in shipped().values() if name is None else [published_named(name)]:
        skeleton = entry.genotype().skeleton
        counts = {
            setting: _count(entry.name, entry.genotype(usual.num_cells), setting, usual, traced=False)
            for (setting, of), usual in SETTINGS.items()
            if of == skeleton
        }
        rows.append({**vars(entry), "counts": counts})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=f"{len(rows)} published networks", title_justify="left", box=None)
    for label in ("Name", "Setting"):
        table.add_column(label)
    for label in ("Params [M]", "published", "MACs [M]", "fvcore [M]", "published", "Error [%]"):
        table.add_column(label, justify="right")
    table.add_column("Paper")
    for row in rows:
        for setting, facts in row["counts"].items():
            figures = row["figures"].get(setting, {})
            table.add_row(
                row["name"],
                setting,
                f"{facts['params'] / 1e6:.6f}",
                _figure(figures, "params_millions"),
                f"{facts['macs_conv_linear'] / 1e6:.3f}",
                f"{facts['fvcore_total'] / 1e6:.3f}",
                _figure(figures, "macs_millions"),
                _figure(figures, "test_error_percent"),
                escape(row["paper"]),
            )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    click.echo("MACs: convolutions and linear layers. Sources, settings and remarks: --json")


@click.command()
def spaces() -> None:
    """List the named search spaces (`space.name`)."""
    from search_spaces.named import SPACES

    for name, template in SPACES.items():
        click.echo(f"{name:<15} {template.summary}")


@click.command()
@click.argument("genotype", metavar="GENOTYPE.json|NAME")
@click.option("--cells", type=int, metavar="N", help="Number of cells, if the genotype does not contain it.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.html")
def draw(genotype: str, cells: int | None, out: Path) -> None:
    """Draw the cells of a network into one HTML file. GENOTYPE.json and NAME are the same as for `count`."""
    from analysis import draw_architecture
    from dnad_ray.run_folder.genotypes import read_any_genotype
    from dnad_ray.run_folder.outputs import PAGES, output_file
    from dnad_ray.storage.files import write_bytes

    file = output_file(out, PAGES, what="an HTML file")
    network = read_any_genotype(genotype, cells)
    title = escape_html(printable(genotype))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1>{draw_architecture(network).html}</html>\n"
    )
    write_bytes(file, page.encode())
    click.echo(f"drawing: {printable(str(out))}")


def _count(name: str, network: Genotype, setting: str, used: Setting, traced: bool = True) -> dict[str, Any]:
    """Return the costs of a network, checked by a trace of fvcore if ``traced``."""
    from dnad_ray.costs.conventions import count_published
    from dnad_ray.costs.table import costs_of
    from dnad_ray.costs.trace import COUNTER
    from search_spaces.formats import to_nas_bench_201

    written, alive = count_published(network, used.shape())
    is_benchmark = network.skeleton == "nas_bench_201"
    chosen = written if is_benchmark else alive
    if traced and alive.params:
        costs_of(network, used.shape(), traced=True)
    facts = {
        "genotype": name,
        "digest": network.digest,
        "skeleton": network.skeleton,
        "setting": setting,
        **used._asdict(),
        "params": chosen.params,
        "macs_conv_linear": chosen.macs_conv_linear,
        "fvcore_total": chosen.macs,
        "meaning": dict(_MEANING),
        "counter": COUNTER,
        "params_as_written": written.params,
        "params_alive": alive.params,
    }
    if is_benchmark:
        with contextlib.suppress(UserError):  # if the cells differ, there is no string for the network
            facts["arch_str"] = to_nas_bench_201(network)
        facts["flops_nas_bench_201"] = written.macs_conv_linear + used.num_classes
    return facts


def _print_count(facts: dict[str, Any]) -> None:
    from dnad_ray.costs.conventions import CONVENTIONS

    click.echo(
        f"{printable(facts['genotype'])}: {facts['num_cells']} cells, {facts['init_channels']} channels, "
        f"{facts['image_size']}x{facts['image_size']}, {'gray, ' * (facts['in_channels'] == 1)}"
        f"{facts['num_classes']} classes, "
        f"auxiliary head excluded; {facts['counter']}"
    )
    rows = [(name, facts[name], words) for name, words in _MEANING.items()]
    if "flops_nas_bench_201" in facts:
        rows.append(("flops_nas_bench_201", facts["flops_nas_bench_201"], CONVENTIONS["nas_bench_201"][0]))
    if facts["params_as_written"] != facts["params_alive"]:
        rows.append(("params_as_written", facts["params_as_written"], "with what is built and leads nowhere"))
        rows.append(("params_alive", facts["params_alive"], "of what carries the image to the classifier"))
    if "arch_str" in facts:
        click.echo(f"  {facts['arch_str']}")
    for name, total in facts.get("conventions", {}).items():
        rows.append((name, total, CONVENTIONS[name][0]))
    for name, total, words in rows:
        in_millions = "" if name.startswith("params") else f"{total / 1e6:12.5f} M"
        click.echo(f"  {name:<20}{total:>16,}{in_millions:>16}  {words}")


def _figure(figures: dict[str, Any], name: str) -> str:
    return f"{figures[name]:g}" if name in figures else ""
