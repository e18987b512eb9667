#!/usr/bin/env bash
# fvcore counts a convolution with padding="same" as nothing.
#
# One expects: `Conv2d(..., padding="same")` and `Conv2d(..., padding=1)` with a 3x3 kernel are one computation, and cost the same.
# What happens: with a named padding the trace holds the operator aten::_convolution_mode, for which fvcore has no rule. It
#   counts 0; the only sign is a line of the log about an unsupported operator, among those about additions and pools.
# Why it matters: fvcore is what many papers on architecture search count with. Networks written with "same" (ported from
#   TensorFlow, or with kernels of several sizes) look almost free beside others.
# Seen with: fvcore 0.1.5.post20221221, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 fvcore==0.1.5.post20221221

"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

print("fvcore", version("fvcore"), "torch", torch.__version__)
image = torch.randn(1, 16, 32, 32)
number, name = (nn.Conv2d(16, 32, 3, padding=padding) for padding in (1, "same"))
name.load_state_dict(number.state_dict())
assert torch.equal(number(image), name(image))
counts = {}
for network in (number, name):
    analysis = FlopCountAnalysis(network, image).unsupported_ops_warnings(False)
    counts[network.padding] = analysis.total()
    print(f"padding={network.padding!r}: {analysis.total():,} multiply-adds, skipped {dict(analysis.unsupported_ops())}")
assert list(counts.values()) == [32 * 32 * 32 * 16 * 9, 0]
PY
