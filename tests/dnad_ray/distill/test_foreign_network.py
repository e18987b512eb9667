"""Networks that are not ours: what they are given, where their stages are found, and what is refused."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
import torch.nn.functional as F

from dnad_ray.config.run import DistillConfig, TeacherConfig
from dnad_ray.distill import teacher_sources
from dnad_ray.distill.foreign_network import ForeignNetwork, build_foreign, check_training
from dnad_ray.distill.foreign_spec import IMAGENET_MEAN, IMAGENET_STD, ForeignSpec, stage_sides
from dnad_ray.distill.teacher import Teacher, check_teacher
from dnad_ray.distill.teacher_training import TeacherTraining
from dnad_ray.errors import ConfigError
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace

MODELS = '''
"""Models of a user."""
from typing import NamedTuple
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, num_classes, channels=3, out=None):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, 2, padding=1)
        self.third = nn.Conv2d(6, 8, 3, 2, padding=1)
        self.head = nn.Linear(8, num_classes if out is None else out)
    def forward(self, x):
        x = self.third(self.second(self.first(x)).relu()).relu()
        return self.head(x.mean((2, 3)))

class Declared(Plain):
    tap_names = ("first", "second", "third")

class Strict(Plain):
    def forward(self, x):
        if x.shape[-1] != 16:
            raise RuntimeError("images of 16 pixels, please")
        return super().forward(x)

class Outputs(NamedTuple):
    logits: torch.Tensor
    second: torch.Tensor
    first: torch.Tensor

class Aided(Plain):
    """Has auxiliary heads in training, of which one is switched off."""
    def __init__(self, num_classes):
        super().__init__(num_classes, channels=1)
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        logits = super().forward(self.norm(x))
        return Outputs(logits, None, 2 * self.drop(logits)) if self.training else logits

class Featured(Plain):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, x) if self.training else logits

class Listing(Plain):
    def forward(self, x):
        logits = super().forward(x)
        return [logits] if self.training else logits

class Fragile(Plain):
    def forward(self, x):
        if self.training:
            raise RuntimeError("larger images, please")
        return super().forward(x)

def gray(num_classes): return Plain(num_classes, channels=1)
def other_classes(num_classes): return Plain(num_classes, out=7)
def broken(num_classes): raise OSError("no such thing")
def text(num_classes): return "a model"
def wild(num_classes): return Wild()
class Wild(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 3, 1)
    def forward(self, x): return [x]
def linear(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
'''


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "my_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("my_models", None)


def outline(model, size=8, channels=3, **options):
    source = "module" if ":" in model else "torchvision"
    defaults = {"input_size": None, "taps": None, "scale": (1.0,), "shift": (0.0,)}
    images = ImageShape(in_channels=channels, image_size=size, num_classes=options.pop("num_classes", 10))
    return ForeignSpec(
        **{
            "source": source,
            "model": model,
            "images": images,
            "sides": stage_sides(size, "cifar"),
            **defaults,
            **options,
        }
    )


@pytest.mark.parametrize("size", [8, 9, 28, 32])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_stage_sides_are_those_of_our_networks(size, stem):
    size = size if stem == "cifar" else size + 32
    space = SearchSpace(operations=("skip_connect",), num_cells=3, num_nodes=1)
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=size, num_classes=2), init_channels=2, stem=stem)
    taps = network_from(space.dense(), shape)(torch.zeros(2, 1, size, size)).taps
    assert stage_sides(size, stem) == tuple(tap.shape[-1] for tap in taps)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (28, 1)])
@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2"])
def test_torchvision_model_keeps_the_resolution_of_small_images(model, size, channels):
    network = build_foreign(outline(model, size, channels))
    assert network.tap_sides == stage_sides(size, "cifar")
    output = network(torch.randn(2, channels, size, size))
    assert output.logits.shape == (2, 10)
    shapes = [(channels, side) for channels, side in zip(network.tap_channels, network.tap_sides, strict=True)]
    assert [(tap.shape[1], tap.shape[2]) for tap in output.taps] == shapes
    if model == "resnet18":
        assert network.tap_channels == (128, 256, 512), "layer2, layer3 and layer4"


def test_efficientnet_has_the_taps_of_the_paper():
    """Features of 40, 112 and 1280 channels at strides 8, 16 and 32 (DNAD, arXiv 2504.20080), found by their size."""
    network = build_foreign(outline("efficientnet_b0", 224, sides=stage_sides(224, "imagenet"), num_classes=1000))
    assert (network.tap_channels, network.tap_sides) == ((40, 112, 1280), (28, 14, 7))
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_288_548


def test_torchvision_model_of_images_that_are_enlarged_is_left_as_it_is():
    network = build_foreign(outline("resnet18", 8, 3, input_size=64))
    assert network.model.conv1.stride == (2, 2)
    assert network.tap_sides == (8, 4, 2), "strides 8, 16 and 32 of 64 pixels"
    asked = network(torch.randn(1, 3, 8, 8))
    assert asked.taps[0].shape == (1, 128, 8, 8)


def test_model_that_is_no_model_of_torchvision():
    with pytest.raises(
        ConfigError, match=r"teacher\.model: got 'resnet81'; allowed: a torchvision model: resnet18, .*"
    ):
        build_foreign(outline("resnet81"))


def test_building_draws_from_no_global_stream():
    state = torch.get_rng_state()
    build_foreign(outline("my_models:Plain"))
    assert torch.equal(torch.get_rng_state(), state)


def test_taps_are_found_by_size_declared_or_named():
    found = build_foreign(outline("my_models:Plain"))
    assert (found.tap_channels, found.tap_sides) == ((4, 6, 8), (8, 4, 2))
    declared = build_foreign(outline("my_models:Declared", 9))
    assert (declared.tap_channels, declared.tap_sides) == ((4, 6, 8), (9, 5, 3))
    named = build_foreign(outline("my_models:Plain", taps=("second", "second", "third")))
    assert (named.tap_channels, named.tap_sides) == ((6, 6, 8), (4, 4, 2))
    images = torch.randn(2, 3, 8, 8)
    output = named(images)
    assert torch.equal(output.taps[1], named.model.second(named.model.first(images)))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("my_models:Plain", {"taps": ("frist", "second", "third")}, r"taps: got 'frist'; allowed: .*such as first"),
        ("my_models:Plain", {"taps": ("head", "second", "third")}, r"taps: got 'head of 2 axes'; allowed: .*\(N, C,"),
        ("my_models:Strict", {}, r"model: got .*16 pixels, please.*; allowed: a model for images of 8x8"),
        ("my_models:gray", {}, r"model: got 'my_models:gray, for images of 1 channels'; allowed: .* the 3 channels"),
        ("my_models:linear", {}, r"model: got .*no channels'; allowed: a convolutional network"),
        ("my_models:other_classes", {}, r"model: got .*shape \(1, 7\)'; allowed: logits for the 10 classes"),
        ("my_models:broken", {}, r"model: got 'my_models:broken \(no such thing\)'; allowed: module:factory"),
        ("my_models:missing", {}, r"model: got .*no attribute 'missing'.*allowed: module:factory that can be imported"),
        ("no_such_module:x", {}, r"model: got .*No module named 'no_such_module'.*PYTHONPATH"),
        ("my_models:text", {}, r"model: got 'my_models:text, a str'; allowed: a factory that returns a torch\.nn\.Mod"),
        ("my_models:wild", {}, r"model: got .*it gives a list, not logits"),
        ("vit_b_16", {}, r"model: got .*Wrong image height.*distill\.teacher\.input_size enlarges them"),
        ("my_models:Plain", {"scale": (1.0, 2.0), "shift": (0.0, 0.0)}, r"mean: got '2 values'; allowed: 3, as the"),
    ],
)
def test_model_that_does_not_fit(model, options, words):
    with pytest.raises(ConfigError, match=words):
        build_foreign(outline(model, **options))


def test_images_of_another_size_are_brought_to_the_models():
    network = build_foreign(outline("my_models:Strict", input_size=16))
    assert network.tap_sides == (8, 4, 0), "sides 16, 8 and 4; none of 2 pixels"
    assert network(torch.randn(1, 3, 8, 8)).taps[2] is None


def test_gray_images_are_shown_to_a_model_for_colours_in_gray():
    network = build_foreign(outline("my_models:Plain", channels=1))
    image = torch.randn(1, 1, 8, 8)
    assert torch.equal(network(image).logits, network.model(image.repeat(1, 3, 1, 1)))


def test_normalisation_is_the_teachers_own(digits):
    settings = TeacherConfig(source="module", model="my_models:Plain", mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3))
    made = ForeignSpec.of(settings, digits, "cifar")
    network = build_foreign(made)
    pixels = torch.rand(2, 1, 8, 8)
    ours = (pixels - digits.mean[0]) / digits.std[0]
    theirs = (pixels - torch.tensor(settings.mean)[:, None, None]) / torch.tensor(settings.std)[:, None, None]
    torch.testing.assert_close(network(ours).logits, network.model(theirs), rtol=1e-4, atol=1e-5)


def test_normalisation_of_weights_of_torchvision_is_that_of_imagenet(digits):
    made = {
        weights: ForeignSpec.of(TeacherConfig(source="torchvision", model="resnet18", weights=weights), digits, "cifar")
        for weights in (None, "x.pth")
    }
    assert (made[None].scale, made[None].shift) == ((1.0,), (0.0,))
    assert made["x.pth"].scale == pytest.approx([digits.std[0] / std for std in IMAGENET_STD])
    assert made["x.pth"].shift == pytest.approx(
        [(digits.mean[0] - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    )


def test_normalisation_of_other_channels_is_refused(digits):
    colours = dataclasses.replace(digits, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    colours = dataclasses.replace(colours, train=_coloured(digits.train))
    settings = TeacherConfig(source="module", model="my_models:Plain", mean=(0.5,), std=(0.2,))
    with pytest.raises(ConfigError, match=r"teacher\.mean: got \(0\.5,\); allowed: 3 values, one per channel"):
        ForeignSpec.of(settings, colours, "cifar")


def _coloured(split):
    return dataclasses.replace(split, images=split.images.repeat(3, axis=1))


def test_outline_is_plain_data():
    made = outline("my_models:Plain", taps=("first", "second", "third"))
    assert ForeignSpec.from_dict(made.to_dict()) == made
    with pytest.raises(KeyError):
        ForeignSpec.from_dict({})


def test_check_training_leaves_a_network_and_every_stream_as_they_were():
    made = outline("my_models:Aided", channels=1)
    network = build_foreign(made)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stream = torch.get_rng_state()
    check_training(network, made)
    assert not network.training
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    output = network.train()(torch.randn(2, 1, 8, 8))
    assert [logits.shape for logits in (output.logits, *output.auxiliary)] == [(2, 10), (2, 10)]
    assert [tap.shape[1] for tap in output.taps] == [4, 6, 8]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("my_models:Featured", r"in training it gives \(2, 3, 8, 8\), not logits of 10 classes"),
        ("my_models:Listing", "in training it gives list, not logits"),
        ("my_models:Fragile", r"larger images, please\)'; allowed: a model that can be trained on images of 8x8"),
    ],
)
def test_model_that_cannot_be_trained_is_refused_before_any_work(model, words, tiny, digits, monkeypatch):
    made = outline(model)
    with pytest.raises(ConfigError, match=words) as caught:
        check_training(build_foreign(made), made)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(teacher_sources, "TeacherTraining", None)  # not begun
    config = tiny({"distill.teacher.source": "module", "distill.teacher.model": model})
    with pytest.raises(ConfigError, match=words):
        teacher_sources.make_teacher(config, digits, torch.device("cpu"))


@pytest.mark.slow
def test_torchvision_models_with_auxiliary_heads_are_trained_or_refused():
    made = outline("googlenet", 32)
    network = build_foreign(made)
    check_training(network, made)
    assert len(network.train()(torch.randn(2, 3, 32, 32)).auxiliary) == 2
    made = outline("inception_v3", 32, input_size=96)
    with pytest.raises(ConfigError, match=r"model: got 'inception_v3 .*; allowed: a model that can be trained"):
        check_training(build_foreign(made), made)


def test_loss_of_a_teacher_has_those_of_its_auxiliary_heads(tiny, digits):
    config = tiny({"distill.teacher.source": "module", "distill.teacher.model": "my_models:Aided"})
    network = build_foreign(outline("my_models:Aided", channels=1))
    training = TeacherTraining(network, config, digits, torch.device("cpu"))
    network.model.drop.p = 0.0
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    losses = training.losses(images, labels)
    task, second = (F.cross_entropy(factor * losses.logits, labels) for factor in (1, 2))
    torch.testing.assert_close(losses.task, task)
    torch.testing.assert_close(losses.total, task + 0.3 * second)


def _teacher(model, **options):
    made = outline(model, **options)
    return Teacher(build_foreign(made), None, None, 0.5, None, made)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"num_classes": 7}, "logits", r"somewhere: got 'a teacher for images of 7 classes'; allowed: 10 classes"),
        ({"size": 16}, "logits", r"somewhere: got 'a teacher for images of 16 pixels a side'; allowed: 8 pixels"),
        ({"channels": 3}, "logits", r"somewhere: got 'a teacher for images of 3 channels'; allowed: 1 channels"),
        (
            {"taps": ("first", "first", "third")},
            "features",
            r"taps: got 'a tap of 8x8 pixels for stage 2 of 3'; allowed: 4x4",
        ),
        ({"input_size": 16}, "similarity", r"taps: got 'no tap for stage 3 of 3'; allowed: a module with maps of 2x2"),
    ],
)
def test_teacher_that_does_not_fit_the_run(options, kind, words, digits):
    teacher = _teacher("my_models:Plain", **{"channels": 1, **options})
    with pytest.raises(ConfigError, match=words):
        check_teacher(teacher, digits, DistillConfig(kind=kind), "cifar", "somewhere")


def test_teacher_of_other_sizes_may_be_imitated_in_relations(digits):
    teacher = _teacher("my_models:Plain", channels=1, taps=("first", "first", "third"))
    for kind in ("logits", "similarity", "relational"):
        check_teacher(teacher, digits, DistillConfig(kind=kind), "cifar", "somewhere")
    check_teacher(teacher, digits, DistillConfig(kind="features", stage_ratios=(1, 0, 1)), "cifar", "somewhere")


def test_network_says_what_no_gradient_passes(digits):
    teacher = _teacher("my_models:Plain", channels=1)
    assert isinstance(teacher.network, ForeignNetwork)
    said = teacher.predict(torch.randn(2, 1, 8, 8), half=True)  # which is for GPUs
    assert [tensor.dtype for tensor in (said.logits, *said.taps)] == [torch.float32] * 4
    assert all(tensor.is_inference() and not tensor.requires_grad for tensor in (said.logits, *said.taps))


def test_description_of_a_foreign_teacher_is_written_on_one_level_and_read_again():
    known = outline("resnet18", 9, 1, num_classes=4, taps=("layer1", "layer2", "layer3"))
    data = known.to_dict()
    # As run folders hold it since there are such teachers.
    assert [*data][:6] == ["source", "model", "in_channels", "image_size", "num_classes", "input_size"]
    assert [*data][6:] == ["sides", "taps", "scale", "shift"]
    assert (data["in_channels"], data["image_size"], data["num_classes"]) == (1, 9, 4)
    assert ForeignSpec.from_dict(data) == known
