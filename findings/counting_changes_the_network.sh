#!/usr/bin/env bash
# Counting the FLOPs of a network changes the network, in three ways.
#
# One expects: a counter reads shapes, and leaves weights, statistics and modes as they were.
# What happens: fvcore and torch's FlopCounterMode run the network in the mode that it has: of a network in training, they mix
#   the counted image (often zeros) into the running statistics of its batch norms. calflops leaves the network in evaluation
#   mode. torchinfo and thop put a network back into training as a whole, also batch norms that were frozen in evaluation mode.
# Why it matters: costs are logged between epochs. After calflops the rest of the training runs without dropout and without
#   batch statistics; after torchinfo and thop frozen norms begin to learn; after fvcore the next evaluation is off.
# Seen with: fvcore 0.1.5.post20221221, calflops 0.3.2, torchinfo 1.8.0, thop 0.1.1.post2209072238, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.0.0 fvcore==0.1.5.post20221221
"$work/venv/bin/python" -m pip install --quiet calflops==0.3.2 torchinfo==1.8.0 thop==0.1.1.post2209072238

"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import thop
import torch
from calflops import calculate_flops
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

print(*(f"{name} {version(name)}" for name in ("torch", "fvcore", "calflops", "torchinfo", "thop")))
image = torch.zeros(1, 3, 32, 32)


def by_torch(network):
    with FlopCounterMode(display=False):
        network(image)


COUNTERS = {
    "fvcore": lambda network: FlopCountAnalysis(network, image).unsupported_ops_warnings(False).total(),
    "FlopCounterMode": by_torch,
    "calflops": lambda network: calculate_flops(network, input_shape=(1, 3, 32, 32), print_results=False),
    "torchinfo": lambda network: summary(network, input_data=image, verbose=0),
    "thop": lambda network: thop.profile(network, (image,), verbose=False),
}


def changes(count, is_frozen):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)).train()
    network[1].train(not is_frozen)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    count(network)
    found = set()
    if any(not torch.equal(state[name], tensor) for name, tensor in network.state_dict().items()):
        found.add("statistics")
    if modes != [module.training for module in network.modules()]:
        found.add("modes")
    return found


table = {name: (changes(count, False), changes(count, True)) for name, count in COUNTERS.items()}
for name, (trained, frozen) in table.items():
    print(f"{name}: in training changes {sorted(trained) or 'nothing'}; with a frozen norm {sorted(frozen) or 'nothing'}")
assert table["fvcore"] == table["FlopCounterMode"] == ({"statistics"}, set())
assert table["calflops"] == ({"modes"}, {"modes"})
assert table["torchinfo"] == table["thop"] == (set(), {"modes"})
PY
