"""Charts as files: HTML always; PNG, SVG and PDF if plotly's exporter is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go

from analysis.charts.template import in_dark
from dnad_ray.errors import ResourceError
from dnad_ray.run_folder.outputs import output_file
from dnad_ray.storage.files import write_bytes
from dnad_ray.text import install_command

__all__ = ["save_figure"]

_PICTURES = ("pdf", "png", "svg", "webp", "jpg")


def save_figure(
    figure: go.Figure, file: str | Path, *, dark: bool = False, width: int = 1000, height: int | None = None
) -> Path:
    """Write a chart to a file; the suffix selects the format.

    Args:
        figure: Any figure of this package.
        file: ``.html`` (complete, opens without a network), ``.json`` (for plotly), ``.png``, ``.svg``, ``.pdf``,
            ``.webp`` or ``.jpg``.
        dark: Whether to use dark colours.
        width: Pixels of a picture; PNG has twice as many, so that it is sharp in print.
        height: Likewise, None for the figure's own.

    Returns:
        The file.

    Raises:
        UserError: If the suffix is none of these, the folder does not exist, or the file is none that may be replaced
            (see :func:`dnad_ray.run_folder.outputs.output_file`).
        ResourceError: If pictures need the exporter (package kaleido, and a Chrome or Chromium) and it is missing,
            or if there is no space left.
    """
    path = Path(file)
    kind = path.suffix.lower().removeprefix(".")
    target = output_file(path, [f".{kind}" for kind in ("html", "json", *_PICTURES)], argument="file", what="a chart")
    drawn = in_dark(figure) if dark else figure
    if kind == "html":
        content = str(drawn.to_html(include_plotlyjs=True)).encode()
    elif kind == "json":
        content = str(drawn.to_json()).encode()
    else:
        if find_spec("kaleido") is None:
            allowed = f"the exporter: {install_command('pictures')}; or an .html file"
            raise ResourceError(f"a .{kind} file", str(file), allowed)
        try:
            content = drawn.to_image(format=kind, width=width, height=height, scale=2 if kind == "png" else 1)
        except (RuntimeError, OSError, ValueError) as error:
            raise ResourceError(
                f"a .{kind} file", str(file), f"Chrome or Chromium for the exporter ({type(error).__name__})"
            ) from error
    write_bytes(target, content)
    return path
