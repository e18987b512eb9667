#!/usr/bin/env bash
# TensorBoard's scalars are float32, also those that are written with double_precision=True.
#
# One expects: `add_scalar(..., 539123457, double_precision=True)` of torch's SummaryWriter keeps the number.
# What happens: a scalar of the usual style is stored in the field `simple_value`, a float32, whatever `double_precision` says:
#   539123456 comes back. Only with `new_style=True` as well is it a tensor of float64; then TensorBoard's EventAccumulator
#   lists it under "tensors", not "scalars".
# Why it matters: multiply-adds, parameters and images seen of a search pass 16,777,216, where float32 no longer has every
#   integer. Curves that are read back no longer match the networks by their cost.
# Seen with: tensorboard 2.21.0, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 tensorboard==2.21.0 setuptools==80.9.0

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import tensorboard
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

print("tensorboard", tensorboard.__version__, "torch", torch.__version__)
MACS = 539_123_457
writer = SummaryWriter("events")
writer.add_scalar("plain", MACS, 0)
writer.add_scalar("double", MACS, 0, double_precision=True)
writer.add_scalar("double, new style", MACS, 0, double_precision=True, new_style=True)
writer.close()
events = EventAccumulator("events").Reload()
read = {tag: int(events.Scalars(tag)[0].value) for tag in events.Tags()["scalars"]}
read |= {tag: int(tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)) for tag in events.Tags()["tensors"]}
print(f"written {MACS:,}, read {read}; tensors: {events.Tags()['tensors']}")
assert read == {"plain": MACS - 1, "double": MACS - 1, "double, new style": MACS}
assert events.Tags()["tensors"] == ["double, new style"]
PY
