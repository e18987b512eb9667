"""Where everything in a run folder is, and what may name it: one function per path (standard library only).

Layout of a run folder::

    config.yaml                          the complete, resolved configuration; written first
    run.json                             marker, schema, name, version
    trials/<trial>/snapshots/<step>.json one file per snapshot, renamed into place: a killed trial loses none;
                                         those of a ladder are <step>-<rung>.json
    trials/<trial>/checkpoints/<step>/   the newest two states of the search, to continue from
    trials/<trial>/history.json          one entry per epoch
    trials/<trial>/status.json           its state, why, and what it changes in the configuration
    genotypes/<digest>.json              every architecture that a snapshot names
    snapshots.parquet, front.json, report.html   made when the command ends, also where it was interrupted
    live.html, live.js                   a page that redraws itself while the run goes on, and what it draws
    tensorboard/<trial>/                 event files, for TensorBoard
"""

from __future__ import annotations

import re

from dnad_ray.errors import RunFolderError

__all__ = ["MARKER_KIND", "RUN_SCHEMA", "SAFE_NAME", "checked_name", "snapshot_name"]

MARKER_KIND = "dnad-ray run"
"""What the marker ``run.json`` of every run says it is."""

RUN_SCHEMA = 1
"""The newest schema of run folders that this version reads, and the one that it writes."""

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""What may name a file of a run folder (and has no two dots in a row)."""


def checked_name(name: str, what: str) -> str:
    """Return a name that may become a part of a path.

    Args:
        name: The name.
        what: What it is the name of, for the error.

    Raises:
        RunFolderError: If the name is not a safe one.

    >>> checked_name("t00", "trial name")
    't00'
    """
    if not SAFE_NAME.fullmatch(name) or ".." in name:
        raise RunFolderError(what, name, "1 to 100 letters, digits, '.', '_' or '-', not starting with a dot, no '..'")
    return name


def snapshot_name(step: int, rung: int) -> str:
    """Return the name of a snapshot's file without its end; in their order the network of the search itself is last.

    >>> sorted([snapshot_name(93, 0) + ".json", snapshot_name(93, 2) + ".json"])
    ['00000093-02.json', '00000093.json']
    """
    return f"{step:08d}-{rung:02d}" if rung else f"{step:08d}"
