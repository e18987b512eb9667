"""A copy of one of the notebooks, filled with the paths of runs."""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path

from analysis.frame import Paths, read_runs
from dnad_ray.errors import UserError
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place, address, place

__all__ = ["NOTEBOOKS", "write_notebook"]

NOTEBOOKS = ("explore", "distillation", "compare")
"""The notebooks that there are."""

_RUNS = re.compile(r"^RUNS = \[.*\]$", re.MULTILINE)


def write_notebook(paths: Paths, out: str | Place, name: str = "explore") -> Place:
    """Write a copy of a notebook in which the runs are named, ready to be executed.

    Args:
        paths: A run folder or several, as for :func:`analysis.frame.load_runs`.
        out: The new file, path or URL, with the suffix ``.ipynb``. A file that is there is never replaced: people
            write in notebooks.
        name: ``explore``, ``distillation`` (a sweep of KD settings) or ``compare`` (several runs).

    Returns:
        The file.

    Raises:
        RunFolderError: If no folder is given, or one is missing, holds no run or is of a newer schema.
        UserError: If there is no such notebook, ``out`` is no new notebook file in an existing folder, or the folder
            holds something called ``analysis``, which a kernel there would import in place of this package.
        ResourceError: If there is no space left.
    """
    if name not in NOTEBOOKS:
        raise UserError("notebook", name, ", ".join(NOTEBOOKS))
    runs = [address(run.path) for run in read_runs(paths)]
    file = place(out, "--out")
    if isinstance(file, Path):
        _check_free(file)
    elif file.suffix != ".ipynb" or file.exists():
        raise UserError("--out", address(file), "a new file with the suffix .ipynb")
    book = parse_record(
        (files("analysis") / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"), f"{name}.ipynb"
    )
    for cell in book["cells"]:
        text = "".join(cell["source"])
        # JSON's texts and lists are Python's too, whatever the paths hold; a function, so that no backslash is read.
        filled = _RUNS.sub(lambda _: f"RUNS = {json.dumps(runs)}", text)
        cell["source"] = filled.splitlines(keepends=True)
    write_bytes(file, (json.dumps(book, indent=1) + "\n").encode())
    return file


def _check_free(file: Path) -> None:
    folder = file.parent
    if file.suffix != ".ipynb" or os.path.lexists(file) or not folder.is_dir():
        raise UserError("--out", str(file), "a new file in an existing folder, with the suffix .ipynb")
    own = Path(__file__).resolve().parent
    for other in (folder / "analysis", folder / "analysis.py"):
        if other.exists() and other.resolve() != own:
            allowed = f"a folder without {other.name}, which a notebook there would import in place of ours"
            raise UserError("--out", str(file), allowed)
