#!/usr/bin/env bash
# thop counts a subclass of Conv2d as nothing.
#
# One expects: a convolution with standardised weights (a subclass of Conv2d, as in BiT, NFNets and timm) costs what the
#   convolution costs that it is derived from.
# What happens: thop finds the rule of a layer by its exact type. A subclass has none, and counts 0; by default nothing
#   is printed (`report_missing=False`). Its fork ultralytics-thop looks at the base classes and counts both alike, but
#   installs into the same package name `thop`: whichever was installed last is the one that counts.
# Why it matters: two people with the same line `thop.profile(...)` report costs that differ by all convolutions of the
#   network, and a search space with layers of its own looks free.
# Seen with: thop 0.1.1.post2209072238, ultralytics-thop 2.2.3, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/count.py" <<'PY'
import sys
from importlib.metadata import version

import thop
import torch
from torch import nn
from torch.nn import functional


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


found = []
for kind in (nn.Conv2d, StandardisedConv2d):
    network = nn.Sequential(kind(16, 32, 3, padding=1, bias=False)).eval()
    found.append(int(thop.profile(network, (torch.zeros(1, 16, 32, 32),), verbose=False)[0]))
print(sys.argv[1], version(sys.argv[1]), f"Conv2d {found[0]:,}, StandardisedConv2d {found[1]:,} multiply-adds")
assert found[0] == 32 * 32 * 32 * 16 * 9
assert found[1] == (0 if sys.argv[1] == "thop" else found[0])
PY
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 thop==0.1.1.post2209072238
"$work/venv/bin/python" "$work/count.py" thop
"$work/venv/bin/python" -m pip install --quiet ultralytics-thop==2.2.3
"$work/venv/bin/python" "$work/count.py" ultralytics-thop
