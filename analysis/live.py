"""The live page of a running search: HTML and SVG of a few kilobytes, without server or network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dnad_ray.run_folder.metrics import metric

__all__ = ["live_page", "live_script"]

_LABELS = ("error", "macs", "params", "num_operations", "proxy_accuracy", "epoch", "hypervolume", "step")


def live_page(name: str) -> str:
    """Return the page of a run: it loads ``live.js`` from the same folder every few seconds and draws its data.

    A page that was opened from a folder may not fetch files, but it may load scripts.

    Args:
        name: Name of the run.
    """
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True, undefined=StrictUndefined)
    labels = {entry: {"label": metric(entry).label, "axis": metric(entry).axis} for entry in _LABELS}
    return environment.get_template("live.html").render(
        title=name,
        labels=Markup(_json(labels)),
    )


def live_script(picture: Mapping[str, Any]) -> str:
    """Return ``live.js``.

    Args:
        picture: What to draw, see :func:`dnad_ray.watch.live_page.picture_of`.
    """
    return f"drawRun({_json(picture)});\n"


def _json(data: Any) -> str:
    # JSON is JavaScript; without "<" it may stand in a page, too.
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
