"""Shared weights of snapshots, saved for a warm start in the form of the derived network's weights."""

from __future__ import annotations

from dnad_ray.errors import RunFolderError, UserError, one_line
from dnad_ray.networks.network_file import weights_of
from dnad_ray.run_folder.layout import weights_file
from dnad_ray.search.state import SearchState
from dnad_ray.storage.files import Write, read_file, write_bytes
from dnad_ray.storage.places import Place, address
from dnad_ray.storage.weights_reader import MAX_BYTES
from search_spaces.inherit import inherited_network

__all__ = ["inherited_weights", "keep_weights"]


def keep_weights(folder: Place, state: SearchState, step: int, write: Write | None = None) -> None:
    """Write the weights of a snapshot; a replayed step writes the same file again.

    Args:
        folder: The run folder.
        state: The search at the step of the snapshot.
        step: The snapshot's step.
        write: Writes the file; None for :func:`dnad_ray.storage.files.write_bytes`.
    """
    shape = state.shape(state.config.space.init_channels)
    network = inherited_network(state.supernet, state.derived_network()[0], state.relaxation.weights().detach(), shape)
    (write or write_bytes)(weights_file(folder, state.trial, step), weights_of(network))


def inherited_weights(folder: Place, trial: str, step: int) -> bytes:
    """Return the weights of a snapshot.

    Raises:
        RunFolderError: If the run did not save them.
    """
    try:
        return read_file(weights_file(folder, trial, step), MAX_BYTES)
    except (OSError, UserError) as error:
        allowed = "a run that was searched with evaluation.keep_weights: true"
        given = f"step {step} of trial {trial!r} in {address(folder)} ({one_line(error)[:100]})"
        raise RunFolderError("--inherit", given, allowed) from error
