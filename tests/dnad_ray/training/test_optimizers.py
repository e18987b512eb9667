"""The optimizers: those of torch, without its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dnad_ray.training.optimizers import SGD, Adam


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.999), "weight_decay": 0.01, "fused": True}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ],
)
def test_steps_and_state_are_those_of_torch(ours, theirs, settings):
    results = []
    for kind in (ours, theirs):
        weights = torch.linspace(-1, 1, 12).requires_grad_()
        added = torch.ones(3, requires_grad=True)
        optimizer = kind([weights], **settings)
        optimizer.add_param_group({"params": [added], "lr": 0.01})
        for step in range(5):
            if step == 3:  # as a resumed training does
                again = kind([weights], **settings)
                again.add_param_group({"params": [added], "lr": 0.01})
                again.load_state_dict(optimizer.state_dict())
                optimizer = again
            optimizer.zero_grad()
            ((weights**2).sum() + (added * step).sum()).backward()
            optimizer.step()
        assert weights.requires_grad
        assert weights.is_leaf
        results.append((weights.detach(), added.detach()))
    for mine, original in zip(*results, strict=True):
        assert torch.equal(mine, original)


def test_steps_do_not_load_the_compiler():
    # It would take one to three CPU seconds in each process that trains.
    code = (
        "import sys, torch; from dnad_ray.training.optimizers import SGD, Adam\n"
        "for kind in (SGD, Adam):\n"
        "    optimizer = kind([torch.ones(2, requires_grad=True)], lr=0.1)\n"
        "    optimizer.param_groups[0]['params'][0].sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
