#!/usr/bin/env bash
# torchinfo counts a linear layer as if it ran on one token.
#
# One expects: a linear layer that is applied to 196 tokens costs 196 times what it costs for one. A convolution 1x1 over
#   the same 196 positions has the same weights, and is the same work.
# What happens: `summary(...).total_mult_adds` multiplies a layer's parameters by the size of the output behind the
#   batch only if the name of its class holds "Conv"; for every other layer it multiplies by the batch alone. The linear
#   layer is counted 196 times too low, and a subclass of Conv2d is counted as a convolution only if it is called one.
# Why it matters: costs of transformers, of mixers and of cells whose blocks have names of their own are wrong by orders
#   of magnitude, without a warning, so a search under a budget of multiply-adds prefers what is not counted.
# Seen with: torchinfo 1.8.0, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 torchinfo==1.8.0

"$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from torch import nn
from torchinfo import summary


class Depthwise(nn.Conv2d):
    """A convolution whose class has another name."""


def counted(layer, shape):
    return summary(layer, input_data=torch.zeros(shape), verbose=0).total_mult_adds


print("torchinfo", version("torchinfo"), "torch", torch.__version__)
true = 196 * 64 * 128
tokens = counted(nn.Linear(64, 128, bias=False), (1, 196, 64))
pixels = counted(nn.Conv2d(64, 128, 1, bias=False), (1, 64, 14, 14))
renamed = counted(Depthwise(64, 128, 1, bias=False), (1, 64, 14, 14))
print(f"196 positions, 64 to 128 channels: {true:,} multiply-adds")
print(f"Conv2d 1x1 over 14 x 14 pixels:    {pixels:,}")
print(f"Linear over 196 tokens:            {tokens:,}")
print(f"the same Conv2d, named Depthwise:  {renamed:,}")
assert pixels == true
assert tokens == renamed == true // 196
PY
