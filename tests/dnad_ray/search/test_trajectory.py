"""The whole learning step, with deletions, against a loop as anybody would write it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import search_spaces.kernels.bank
import search_spaces.kernels.small_images
from benchmarks.plain_supernet import PlainSupernet, copy_weights, twins
from dnad_ray.config.run import RunConfig, ShrinkConfig, TrainConfig
from dnad_ray.search.learner import Learner
from search_spaces.genotype import NONE
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet

OPERATIONS = ("sep_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "skip_connect", "conv_7x1_1x7", NONE)
SPACE = SearchSpace(operations=OPERATIONS, num_cells=3, num_nodes=2)
SHAPE = NetworkShape(images=ImageShape(in_channels=2, image_size=7, num_classes=3), init_channels=3)
SETTINGS = TrainConfig(
    learning_rate=0.01,
    betas=(0.6, 0.99),
    weight_decay=0.01,
    grad_clip=3.0,  # some norms lie above and some below
    arch_learning_rate=0.6,
    arch_momentum=0.6,
    device="cpu",
)
NUM_STEPS, BATCH_SIZE = 20, 5
BASELINE = {4: 0.025, 6: 0.03, 9: 0.04, 12: 0.05, 14: 0.06, 17: 0.08}  # step -> weight below which candidates go
# 3 cells whose nodes have 2 and 3 states, 6 operations on each.
DENSE_SPARSITY = 3 * (12 * math.log1p(50 / 12) + 18 * math.log1p(50 / 18))
LAST_DELETION = 18  # what reads the cell between the first and the last, and with it that cell


@pytest.fixture
def _exactly():
    """Everything that is made has 64 bits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class _PlainLearner:
    """The same optimisation with nothing removed: what is dead is not asked, and stays where it is."""

    def __init__(self, supernet, a, form):
        self.form = form
        size = (
            SPACE.num_cells,
            SPACE.num_nodes,
            SHAPE.images.in_channels,
            SHAPE.init_channels,
            SHAPE.images.num_classes,
        )
        self.network = PlainSupernet(SPACE.operations, *size)
        copy_weights(supernet, self.network)
        self.candidates = [(cell, node, tuple(edge)) for cell, node, edge in supernet.candidates]
        self.is_alive = [True] * len(self.candidates)
        self.a = a.clone().requires_grad_()
        options = {"betas": SETTINGS.betas, "weight_decay": SETTINGS.weight_decay, "fused": False, "foreach": False}
        self.optimizer = torch.optim.Adam(self.network.parameters(), SETTINGS.learning_rate, **options)
        self.arch_optimizer = torch.optim.SGD([self.a], SETTINGS.arch_learning_rate, momentum=SETTINGS.arch_momentum)
        self.norms = []

    def alive(self):
        return [position for position, is_alive in enumerate(self.is_alive) if is_alive]

    def weights(self):
        totals = {}
        for position in self.alive():
            node = self.candidates[position][:2]
            totals[node] = totals.get(node, 0) + torch.relu(self.a[position])
        return [torch.relu(self.a[position]) / totals[self.candidates[position][:2]] for position in self.alive()]

    def step(self, images, labels, pressure):
        weights = self.weights()
        candidates = [self.candidates[position] for position in self.alive()]
        logits, _ = self.network(images, candidates, weights)
        loss = F.cross_entropy(logits, labels)
        if pressure is not None:
            gamma, mu = pressure
            total = sum(torch.log(1 + 50 * weight) for weight in weights)
            if self.form == "paper":
                loss = loss * (1 + gamma * total) + gamma * mu * total
            else:
                loss = loss + gamma * (loss.item() + mu) * 576.2 / DENSE_SPARSITY * total
        self.optimizer.zero_grad(set_to_none=True)
        self.arch_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        norm = sum(gradient.square().sum() for gradient in gradients) ** 0.5
        for gradient in gradients:
            gradient.mul_(min(1.0, SETTINGS.grad_clip / (norm.item() + 1e-6)))
        self.norms.append(norm.item())
        self.optimizer.step()
        self.arch_optimizer.step()
        return loss.item(), (logits.argmax(1) == labels).sum().item()

    def weakest(self, baseline):
        """Positions among the alive ones; a node keeps the best that computes something."""
        weights = dict(zip(self.alive(), self.weights(), strict=True))
        computing = [position for position in weights if self.candidates[position][2][0] != NONE]
        best = {}
        for position in sorted(computing, key=lambda position: -weights[position].item()):
            best.setdefault(self.candidates[position][:2], position)
        return [
            place
            for place, (position, weight) in enumerate(weights.items())
            if weight < baseline and position not in best.values()
        ]


def _batches():
    generator = torch.Generator().manual_seed(7)
    for _ in range(NUM_STEPS):
        images = torch.randn(BATCH_SIZE, 2, 7, 7, generator=generator)
        yield images, torch.randint(3, (BATCH_SIZE,), generator=generator)


@pytest.mark.usefixtures("_exactly")
@pytest.mark.parametrize(
    ("small", "limits", "form"),
    [
        (0, (10**9, 10**9), "paper"),
        (0, (10**9, 0), "paper"),
        (0, (0, 0), "paper"),
        (10**9, (0, 0), "paper"),
        (10**9, (0, 0), "added"),  # the pressure is on the weights, however the images are computed
    ],
    ids=["unfolded", "grouped", "one by one", "small images", "small images, pressure added"],
)
def test_trajectory_is_that_of_a_plain_loop(small, limits, form, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.small_images, "SMALL_UP_TO", small)
    for name, limit in zip(("GROUPED_BELOW", "UNFOLDED_UP_TO"), limits, strict=True):
        monkeypatch.setattr(search_spaces.kernels.bank, name, limit)
    torch.manual_seed(0)
    config = RunConfig(train=SETTINGS, shrink=ShrinkConfig(pressure=form, criterion="weight"))
    learner = Learner(config, Supernet(SPACE, SHAPE).to(memory_format=torch.channels_last), nn.Identity(), None)
    with torch.no_grad():  # from where weights of 0.02 and of 0.14 begin
        learner.relaxation.parameter.uniform_(0.5, 3.0)
    plain = _PlainLearner(learner.supernet, learner.relaxation.parameter.detach(), form)
    deletions = []
    for number, (images, labels) in enumerate(_batches()):
        pressure = None if number < 2 else (0.01 * 1.1**number, 0.5)
        learner.step(images.contiguous(memory_format=torch.channels_last), labels, pressure)
        loss, correct = plain.step(images, labels, pressure)
        look = learner.look()
        assert look.loss == pytest.approx(loss, abs=1e-8)
        assert look.correct == correct
        assert look.weights == pytest.approx([weight.item() for weight in plain.weights()], abs=1e-8)
        assert min(look.weights) > 0, "a weight of zero has no gradient in the plain loop, and one in ours"
        positions = []
        if number in BASELINE:
            positions = learner.relaxation.weakest(look.weights, BASELINE[number])
            assert positions == plain.weakest(BASELINE[number])
        elif number == LAST_DELETION:
            if form == "paper":
                _assert_it_was_worth_comparing(learner.supernet, plain)
            positions = [
                position
                for position, (cell, _, edge) in enumerate(learner.supernet.candidates)
                if (cell, edge.source) == (2, 1)
            ]
        if positions:
            _delete(learner, plain, positions)
            deletions.append(number)
    assert deletions == [*BASELINE, LAST_DELETION]
    assert set(learner.supernet.network.cells) == {"0", "2"}
    _assert_same_tensors(learner.supernet, plain.network)
    torch.testing.assert_close(learner.relaxation.parameter, plain.a[plain.alive()], rtol=1e-8, atol=1e-8)


def _delete(learner, plain, positions):
    alive = plain.alive()
    learner.delete(positions)
    left = [(cell, node, tuple(edge)) for cell, node, edge in learner.supernet.candidates]
    gone = {plain.candidates[alive[place]] for place in positions}
    assert not gone & set(left)
    for position in alive:
        if plain.candidates[position] not in left:
            plain.is_alive[position] = False
    # Beyond what was asked for only cells go that nothing reads any more, and `none` with its node.
    further = {plain.candidates[position] for position in alive} - gone - set(left)
    assert all(not learner.supernet.genotype.live_cells()[cell] for cell, *_ in further)


def _assert_it_was_worth_comparing(supernet, plain):
    """Clipping was at work in some steps and not in others, and all kinds of parameters and banks are left."""
    assert min(plain.norms) < SETTINGS.grad_clip < max(plain.norms)
    assert {edge.operation for _, _, edge in supernet.candidates} == set(OPERATIONS)
    nodes = [node for cell in supernet.network.cells.values() for node in cell.nodes]
    assert {1, 2} <= {len(members) for node in nodes for members in node.members.values()}


def _assert_same_tensors(supernet, plain):
    ours, theirs = supernet.state_dict(), plain.state_dict()
    for plain_name, (name, rows) in twins(supernet).items():
        expected = theirs[plain_name].reshape(ours[name][rows].shape)
        torch.testing.assert_close(ours[name][rows], expected, rtol=1e-8, atol=1e-8, msg=plain_name)
