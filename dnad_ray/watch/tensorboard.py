"""Logger for TensorBoard: event files in the run folder, one folder per trial, written by the driver only.

On a disk each record is written at once. Object stores cannot append, so there the whole file of a running trial is
replaced, at most twice a minute.

Records that a killed command did not write are written when the run is resumed, and records that a trial repeats are
not written again. Steps are those of the search; below ``over-macs`` they are MACs.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.types_pb2 import DT_DOUBLE
from tensorboardX.record_writer import masked_crc32c

from dnad_ray.run_folder.layout import tensorboard_folder
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.storage.files import append_bytes, on_disk, write_bytes
from dnad_ray.storage.places import Place
from dnad_ray.watch.logbook import TrialLog, after, scalars_of
from dnad_ray.watch.standing import Record, Standing, TrialStanding

__all__ = ["EventFiles", "events_in"]

# Always the same name: a resumed run continues the file.
_FILE = "events.out.tfevents.dnad-ray"
_PUT_SECONDS = 30.0
_VERSION = "brain.Event:2"
# Plain scalars of event files have 24 bits, and a count of MACs has more digits: these are tensors of one double.
_COUNTS = frozenset({"macs", "macs_conv_linear", "params"})
_FRAME = 16  # length (8), its checksum (4), and after the event the event's (4)


def _framed(event: Event) -> bytes:
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content)))
    )


def _scalars(step: int, values: Mapping[str, float]) -> bytes:
    event = Event(wall_time=time.time(), step=step)
    for name, value in values.items():
        if name in _COUNTS:
            entry = event.summary.value.add(tag=name, tensor=TensorProto(dtype=DT_DOUBLE, double_val=[value]))
            entry.tensor.tensor_shape.SetInParent()  # that of a single number
            entry.metadata.plugin_data.plugin_name = "scalars"
        else:
            event.summary.value.add(tag=name, simple_value=value)
    return _framed(event)


def _head() -> bytes:
    return _framed(Event(wall_time=time.time(), file_version=_VERSION))


def events_in(content: bytes) -> Iterator[tuple[int, Event]]:
    """Yield each intact event of a file with the offset behind it; ends at the first one that is torn."""
    offset = 0
    while offset + _FRAME <= len(content):
        length = content[offset : offset + 8]
        end = offset + _FRAME + int.from_bytes(length, "little")
        body = content[offset + 12 : end - 4]
        sums = struct.pack("<I", masked_crc32c(length)), struct.pack("<I", masked_crc32c(body))
        if end > len(content) or (content[offset + 8 : offset + 12], content[end - 4 : end]) != sums:
            return
        yield end, Event.FromString(body)
        offset = end


@final
class EventFiles(TrialLog):
    """Writes event files below ``tensorboard/`` in the run folder."""

    def __init__(self) -> None:
        self._folder: Place = Path()
        self._buffers: dict[str, bytearray] = {}
        self._put: dict[str, float] = {}
        self._over_macs: dict[str, dict[int, dict[str, float]]] = {}

    def begin_run(self, run: Standing) -> None:
        """Find the folder."""
        self._folder = tensorboard_folder(run.folder)

    def take_up(self, trial: TrialStanding, records: Sequence[Record]) -> tuple[int, int]:
        """Cut an incomplete last event off the file, and write the missing records."""
        file = self._file(trial)
        content = file.read_bytes() if file.is_file() else b""
        size = report_step = snapshot_step = 0
        for end, event in events_in(content):
            size = end
            if any(value.tag == "macs" for value in event.summary.value):
                snapshot_step = max(snapshot_step, event.step)
            elif event.summary.value:
                report_step = max(report_step, event.step)
        intact = content[:size] or _head()
        missing = after(records, report_step, snapshot_step)
        added = b"".join(_scalars(record.step, scalars_of(record)) for record in missing)
        if intact != content or added:
            write_bytes(file, intact + added)
        if not on_disk(self._folder):
            self._buffers[trial.spec.name] = bytearray(intact + added)
        if trial.state.is_finished:
            self._buffers.pop(trial.spec.name, None)
        else:
            for record in records:
                self._remember(trial, record)
        return report_step, snapshot_step

    def begin(self, trial: TrialStanding) -> None:
        """Create the trial's file, unless it exists."""
        if trial.spec.name not in self._buffers and not (on_disk(self._folder) and self._file(trial).is_file()):
            self._append(trial, _head())

    def write(self, trial: TrialStanding, record: Record) -> None:
        """Append a record."""
        self.begin(trial)
        self._append(trial, _scalars(record.step, scalars_of(record)))
        self._remember(trial, record)

    def end(self, trial: TrialStanding) -> None:
        """Write the curves over MACs, in ascending order: a search records them in descending order."""
        buffer = self._buffers.pop(trial.spec.name, None)
        if buffer is not None:
            write_bytes(self._file(trial), bytes(buffer))
        points = self._over_macs.pop(trial.spec.name, {})
        if points:
            content = _head() + b"".join(_scalars(macs, points[macs]) for macs in sorted(points))
            write_bytes(self._file(trial).parent / "over-macs" / _FILE, content)

    def _remember(self, trial: TrialStanding, record: Record) -> None:
        if isinstance(record, Snapshot):
            values = {"num_operations": float(record.num_operations), **scalars_of(record)}
            self._over_macs.setdefault(trial.spec.name, {})[record.macs] = values

    def _append(self, trial: TrialStanding, content: bytes) -> None:
        if on_disk(self._folder):
            append_bytes(Path(str(self._file(trial))), content)
            return
        buffer = self._buffers.setdefault(trial.spec.name, bytearray())
        buffer += content
        now = time.monotonic()
        if now - self._put.get(trial.spec.name, -math.inf) > _PUT_SECONDS:
            write_bytes(self._file(trial), bytes(buffer))
            self._put[trial.spec.name] = now

    def _file(self, trial: TrialStanding) -> Place:
        return self._folder / trial.spec.name / _FILE
