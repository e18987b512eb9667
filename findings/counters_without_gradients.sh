#!/usr/bin/env bash
# Two counters of FLOPs see nothing of a transformer layer where gradients are off.
#
# One expects: counting under `torch.no_grad()`, as one evaluates, gives what counting with gradients gives.
# What happens: in evaluation mode and without gradients, torch runs MultiheadAttention and TransformerEncoderLayer as fused
#   operators. fvcore has no rule for the fused attention and counts 0 for it; torch's own FlopCounterMode counts 0 for the
#   whole fused layer. With gradients on, both see the projections. An LSTM on a CPU is one operator always, and
#   FlopCounterMode counts 0 for it always.
# Why it matters: an evaluation loop is where costs are usually counted. A transformer looks much cheaper there than it is, beside
#   convolutional networks, whose counts do not change.
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
from torch.utils.flop_counter import FlopCounterMode


def by_fvcore(network, tokens):
    return int(FlopCountAnalysis(network, tokens).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def by_torch(network, tokens):
    with FlopCounterMode(display=False) as counter:
        network(tokens)
    return counter.get_total_flops() // 2


print("fvcore", version("fvcore"), "torch", torch.__version__)


class Attention(nn.Module):
    """Self-attention of one input."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, tokens):
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


tokens = torch.randn(2, 10, 64)
attention, layer = Attention().eval(), nn.TransformerEncoderLayer(64, 4, batch_first=True).eval()
counts = {}
for grad in (True, False):
    with torch.set_grad_enabled(grad):
        counts[grad] = (by_fvcore(attention, tokens), by_torch(layer, tokens))
    print(f"gradients {grad}: attention by fvcore {counts[grad][0]:,}, layer by FlopCounterMode {counts[grad][1]:,}")
lstm = by_torch(nn.LSTM(64, 64, batch_first=True), tokens)
print(f"LSTM, gradients True: FlopCounterMode {lstm:,}")
assert counts[True][0] == 2 * 10 * 4 * 64 * 64
assert counts[True][1] == 2 * 10 * (4 * 64 * 64 + 2 * 64 * 2048)
assert counts[False] == (0, 0)
assert lstm == 0
PY
