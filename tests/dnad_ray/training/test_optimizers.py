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


def test_training_does_not_load_the_compiler(tmp_path):
    # It would take one to three seconds in each process that trains.
    code = (
        "import sys; from dnad_ray.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' in sys.modules\n"
        "print('compiler:', 'torch._dynamo' in sys.modules)"
    )
    settings = ("train.epochs=3", "distill.teacher.epochs=1")
    arguments = ["search", "smoke", "--out", str(tmp_path / "run"), *(part for one in settings for part in ("--set", one))]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "compiler: False"
