"""The one reader of weights. The declared names, shapes and types are checked before a tensor is created.

Weights are safetensors files, which hold only names, shapes and bytes. The state of a search holds more than tensors
and is saved by torch as a zip file with a pickle inside. It is read by torch's restricted reader, and only if
everything in it is also on the list here.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dnad_ray.errors import UserError, one_line
from search_spaces.json_reader import parse_json
from search_spaces.kernels.states import present_name

__all__ = ["MAX_BYTES", "WeightsError", "parse_checkpoint", "parse_state", "parse_weights"]

MAX_BYTES = 8 * 2**30
"""Of a file of weights; a supernet of a million parameters with its optimizer has 12 * 2**20."""

_MAX_HEADER = 4 * 2**20
_MAX_PICKLE = 256 * 2**20  # holds the epochs so far beside the names of the tensors
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_STORAGES = ("Byte", "Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool")
_NAMES = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *(f"torch {name}Storage" for name in _STORAGES)}
)
_NESTED = ("state_dict", "model", "model_state_dict", "net", "weights")  # where training scripts put the weights
_ZIP = b"PK"
_CHECKPOINTS = "safetensors, or a state dictionary written by torch.save (torch 1.6 or later)"
_PLAIN = (str, int, float, bool, type(None))


class WeightsError(UserError):
    """A file has no weights, or not the expected ones."""


def parse_weights(content: bytes, expected: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Parse safetensors that hold exactly the expected tensors.

    Args:
        content: The file.
        expected: What it must hold: names, shapes and types count; tensors on the device ``meta`` take no memory.
            A file of an older version has the older names of the same tensors.
        origin: Where it came from, for error messages.

    Raises:
        WeightsError: If it is no such file.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER, len(content) - 8):
        raise WeightsError(origin, f"{len(content):,} bytes with a header of {length:,}", "a safetensors file")
    header = parse_json(content[8 : 8 + length], origin, _MAX_HEADER)
    if not isinstance(header, dict):
        raise WeightsError(origin, type(header).__name__, "a safetensors file, whose header is an object")
    header.pop("__metadata__", None)
    entries = [(present_name(name), entry) for name, entry in header.items()]
    declared = {name: (entry.get("dtype"), entry.get("shape")) for name, entry in entries if _is_entry(entry)}
    wanted = {name: (_DTYPES.get(tensor.dtype), list(tensor.shape)) for name, tensor in expected.items()}
    twice = {name for name, count in Counter(name for name, _ in entries).items() if count > 1}
    for name in sorted({*wanted, *(name for name, _ in entries)}):
        if declared.get(name) != wanted.get(name) or name in twice:
            allowed = f"exactly the tensors of the network described, {name!r} as {wanted.get(name, 'none')}"
            raise WeightsError(origin, declared.get(name, "no such tensor"), allowed)
    try:
        return {present_name(name): tensor for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise WeightsError(origin, one_line(error), "an intact safetensors file") from None


def parse_state(content: bytes, origin: str) -> dict[str, Any]:
    """Parse a dictionary of plain data and dense tensors that ``torch.save`` wrote.

    Args:
        content: The file.
        origin: Where it came from, for error messages.

    Raises:
        WeightsError: If it is not such a file, or has or declares anything else.
    """
    try:
        _check_archive(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        _check_plain(state, len(content))
    except Exception as error:  # noqa: BLE001 - a file that was made up makes torch raise nearly anything
        raise WeightsError(origin, one_line(error)[:300], "an intact state of a search") from None
    if not isinstance(state, dict):
        raise WeightsError(origin, type(state).__name__, "a dictionary")
    return state


def parse_checkpoint(content: bytes, origin: str) -> dict[str, Tensor]:
    """Parse named tensors from another program: safetensors, or a state dictionary that ``torch.save`` wrote.

    A state dictionary may be an entry of another dictionary, under one of the usual names.

    Args:
        content: The file.
        origin: Where it came from, for error messages.

    Raises:
        WeightsError: If it is not such a file, or its pickle names anything but dense tensors.
    """
    if content[:2] != _ZIP:
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > min(_MAX_HEADER, len(content) - 8) or content[8:9] != b"{":
            raise WeightsError(origin, f"{len(content):,} bytes of another format", _CHECKPOINTS)
        try:
            return safetensors.torch.load(content)
        except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
            raise WeightsError(origin, one_line(error), "an intact safetensors file") from None
    state = parse_state(content, origin)
    state = next((state[name] for name in _NESTED if isinstance(state.get(name), dict)), state)
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not weights or len(weights) < len(state) or not all(isinstance(name, str) for name in weights):
        raise WeightsError(origin, "a dictionary of other things", _CHECKPOINTS)
    return weights


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("shape"), list)


def _check_archive(content: bytes) -> None:
    """Look into the zip file without unpacking it, and through the pickle without executing it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise ValueError("compressed entries")  # torch never writes them; they could grow a thousandfold
        if sum(entry.file_size for entry in entries) > len(content) or len({e.filename for e in entries}) < len(
            entries
        ):
            raise ValueError("entries that overlap")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE:
            raise ValueError("not one pickle of the usual size")
        for name in _names_in(archive.read(pickles[0])):
            if name not in _NAMES:
                raise ValueError(f"{name.replace(' ', '.')}, which no state of ours has")


def _names_in(pickle: bytes) -> Iterator[str]:
    """Yield what a pickle would import; one that builds names from parts gives the name of the operation."""
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name == "GLOBAL":
            yield str(argument)
        elif operation.name in {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}:
            yield operation.name


def _check_plain(state: Any, size: int) -> None:
    """Check that there is nothing but plain data and dense tensors no larger than the file."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    layer = [state]
    while layer:
        node = layer.pop()
        if isinstance(node, dict | list | tuple):
            if id(node) not in seen:  # a container that is named often is looked at once
                seen.add(id(node))
                layer += [*node.keys(), *node.values()] if isinstance(node, dict) else node
        elif type(node) is Tensor:
            if node.layout is not torch.strided or node.is_quantized or node.device.type != "cpu" or node.is_nested:
                raise ValueError("a tensor that is not dense")
            storage = node.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if node.numel() * node.element_size() > storage.nbytes() or sum(storages.values()) > size:
                raise ValueError("a tensor larger than what the file holds of it")
        elif type(node) not in _PLAIN:
            raise ValueError(f"a {type(node).__name__}")
