"""Checkpoints with a manifest that is written last; an incomplete or damaged one is not used.

A torn checkpoint stays on disk, a retry may merge into the same folder, and flipped bits pass silently through
torch: the loader reads only what the manifest lists, with the size and the SHA-256 that it lists.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

import torch
from torch import Tensor

from dnad_ray.errors import UserError
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import read_file, write_bytes, write_json
from dnad_ray.storage.places import Place, remove_folder
from dnad_ray.storage.weights_reader import MAX_BYTES, parse_state

__all__ = [
    "CheckpointKeeper",
    "keep_checkpoint",
    "load_newest",
    "prune_checkpoints",
    "save_checkpoint",
]

SCHEMA = 2
_STATE, _MANIFEST = "state.pt", "manifest.json"
_LARGEST_MANIFEST = 10_000
LONGEST_GAP_SECONDS = 30.0
"""After this time the next check keeps a checkpoint, even where nothing asks for one."""
LEAST_GAP_FACTOR = 100.0
"""Least time between two checkpoints, in multiples of what the last one took: they cost at most one hundredth."""
LEAST_GAP_SECONDS = 5.0
"""Least time between two checkpoints. A new worker needs about as long to start, so a shorter gap saves nothing."""


@final
class CheckpointKeeper:
    """Writes the checkpoints of a trial, or of another training, and limits the time that they cost.

    A trial that was killed repeats its steps with the same snapshots, so a checkpoint saves time only. See
    :meth:`is_due` for how often one is written.

    A state with NaN or infinity is never written: a trial that continued from it would diverge again, and the
    checkpoint before it stays the newest.

    Args:
        checkpoints: The folder that :func:`dnad_ray.run_folder.layout.checkpoints_folder` names.
        settle: Called before each checkpoint; returns once all files written before it are complete.
    """

    def __init__(self, checkpoints: Place, settle: Callable[[], None] | None = None) -> None:
        self._checkpoints, self._settle = checkpoints, settle
        self._last = time.monotonic()
        self._cost = 0.0

    def newest(self) -> dict[str, Any] | None:
        """Return the state of the newest intact checkpoint; None if there is none."""
        return load_newest(self._checkpoints.glob("*"))

    def is_due(self, *, wanted: bool) -> bool:
        """Whether to keep a checkpoint now.

        True after 30 seconds without one. If ``wanted``, true earlier: after 5 seconds or 100 times the duration of
        the last write, whichever is longer.

        Args:
            wanted: Whether something just happened that should not be computed again, such as a snapshot.
        """
        passed = time.monotonic() - self._last
        return passed > LONGEST_GAP_SECONDS or (
            wanted and passed >= max(LEAST_GAP_SECONDS, LEAST_GAP_FACTOR * self._cost)
        )

    def keep(self, state: Callable[[], dict[str, Any]], step: int) -> None:
        """Add a checkpoint and remove all but the two newest; a state with NaN or infinity is not written.

        Args:
            state: Returns plain data and tensors, as :meth:`dnad_ray.search.loop.SearchState.state_dict` does.
            step: Optimisation steps taken.
        """
        if self._settle is not None:
            self._settle()
        began = time.monotonic()
        found = state()
        if _is_finite(found):
            keep_checkpoint(self._checkpoints, found, step)
        self._last = time.monotonic()
        self._cost = self._last - began


def keep_checkpoint(checkpoints: Place, state: dict[str, Any], step: int) -> None:
    """Add a checkpoint to those of a trial, and remove the ones before the two newest."""
    save_checkpoint(checkpoints / f"{step:08d}", state, step)
    prune_checkpoints(checkpoints)


def save_checkpoint(folder: Place, state: dict[str, Any], step: int) -> None:
    """Write ``state`` (plain data and tensors) into ``folder``.

    Args:
        folder: One checkpoint's own folder.
        state: What :meth:`dnad_ray.search.loop.SearchState.state_dict` returned.
        step: Optimisation steps taken; among several checkpoints the highest is the newest.
    """
    (folder / _MANIFEST).unlink(missing_ok=True)  # while the files change, the folder is no checkpoint
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_bytes(folder / _STATE, content)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / _MANIFEST, {"schema": SCHEMA, "step": step, "files": {_STATE: entry}})


def load_newest(folders: Iterable[Place]) -> dict[str, Any] | None:
    """Return the state of the newest intact checkpoint among ``folders``, None if there is none.

    What does not match its manifest is passed over in favour of the one before it.
    """
    manifests = [(folder, manifest) for folder in folders if (manifest := _manifest_of(folder)) is not None]
    for folder, manifest in sorted(manifests, key=lambda pair: pair[1]["step"], reverse=True):
        state = _state_of(folder / _STATE, manifest["files"][_STATE])
        if state is not None:
            return state
    return None


def prune_checkpoints(folder: Place, keep: int = 2) -> None:
    """Remove all but the newest ``keep`` checkpoints below ``folder``; two, so that a torn one is no loss."""
    for old in sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name)[:-keep]:
        remove_folder(old)


def _is_finite(state: Any) -> bool:
    """Whether all tensors of a state are finite; synchronises with the device once, not for each tensor."""
    flags = [tensor.detach().isfinite().all() for tensor in _tensors(state) if tensor.is_floating_point()]
    return not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all())


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def _manifest_of(folder: Place) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = parse_record(read_file(folder / _MANIFEST, _LARGEST_MANIFEST), _MANIFEST)
        entry = manifest["files"][_STATE]
        is_ours = manifest["schema"] == SCHEMA and type(manifest["step"]) is int and {"size", "sha256"} <= entry.keys()
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return None
    return manifest if is_ours else None


def _state_of(file: Place, entry: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = read_file(file, MAX_BYTES)
        if len(content) != entry["size"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            return None
        return parse_state(content, file.name)
    except (OSError, UserError):
        return None
