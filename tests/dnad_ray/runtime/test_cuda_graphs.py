"""Recorded steps on a GPU against plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dnad_ray.config.run import DistillConfig, RunConfig, TrainConfig
from dnad_ray.errors import ConfigError
from dnad_ray.runtime.devices import to_device
from dnad_ray.search.learner import Learner
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet


def test_graphs_on_a_cpu_are_refused_in_words():
    from dnad_ray.config.recipes import recipe_named
    from dnad_ray.config.run import with_overrides

    with pytest.raises(ConfigError, match=r"train\.cuda_graphs: got True, which has no effect with device 'cpu'"):
        with_overrides(recipe_named("smoke"), {"train.cuda_graphs": True, "train.device": "cpu"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_steps_learn_what_plain_steps_do_also_after_deletions():
    device = torch.device("cuda")
    space = SearchSpace(operations=("sep_conv_3x3", "dil_conv_5x5", "skip_connect"), num_cells=3, num_nodes=2)
    shape = NetworkShape(images=ImageShape(in_channels=3, image_size=8, num_classes=4), init_channels=4)
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 8, 8, device=device), torch.randint(4, (8,), device=device)) for _ in range(14)]
    batches = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in batches]
    results = []
    for cuda_graphs in (False, True):
        torch.manual_seed(1)
        supernet = to_device(Supernet(space, shape), device)
        config = RunConfig(train=TrainConfig(cuda_graphs=cuda_graphs), distill=DistillConfig(kind="none"))
        learner = Learner(config, supernet, nn.Identity(), None)
        looks = []
        for number, batch in enumerate(batches):
            learner.step(*batch, None if number < 5 else (1e-2, 0.1))
            if number == 9:
                learner.delete([0, 7, 11])
            looks.append(learner.look())
        results.append((looks, [value.clone() for value in supernet.state_dict().values()]))
    (plain, plain_values), (recorded, recorded_values) = results
    for ours, theirs in zip(recorded, plain, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.weights == pytest.approx(theirs.weights, abs=1e-3)
    for ours, theirs in zip(recorded_values, plain_values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
