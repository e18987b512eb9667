"""Where teachers come from: a torchvision model, one's own, a saved one, the best of an earlier run."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from dnad_ray.config.run import with_overrides
from dnad_ray.data.images import Split
from dnad_ray.distill.foreign_spec import IMAGENET_MEAN
from dnad_ray.distill.teacher import load_teacher, read_teacher, save_teacher
from dnad_ray.distill.teacher_sources import best_of_front, make_teacher, teacher_genotype
from dnad_ray.errors import ConfigError, NonFiniteLossError, RunFolderError
from dnad_ray.networks.network_file import write_network
from dnad_ray.networks.spec import NetworkSpec, build
from dnad_ray.run_folder.writing import create_run, write_snapshot
from dnad_ray.runtime.torchvision_import import torchvision_models
from dnad_ray.search.loop import SearchState, search
from dnad_ray.storage.files import write_json
from dnad_ray.storage.places import place
from dnad_ray.storage.weights_reader import WeightsError
from dnad_ray.training.evaluate import accuracy_of
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.shape import ImageShape

CPU = torch.device("cpu")
MODELS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, num_classes)
    def forward(self, x):
        return self.head(self.drop(self.third(self.second(self.first(x))).mean((2, 3))))
"""
OWN = {"distill.teacher.source": "module", "distill.teacher.model": "own_models:Small"}
RESNET = {"distill.teacher.source": "torchvision", "distill.teacher.model": "resnet18"}


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "own_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("own_models", None)


@pytest.fixture(scope="module")
def base(tiny):
    return with_overrides(tiny(), {"distill.kind": "logits+features", "distill.teacher.epochs": 8})


@pytest.fixture(scope="module")
def own(base, digits):
    return make_teacher(with_overrides(base, {**OWN, "distill.teacher.learning_rate": 1e-2}), digits, CPU)


def _resnet_weights(num_classes=10):
    torch.manual_seed(3)
    return torchvision_models().get_model("resnet18", weights=None, num_classes=num_classes).state_dict()


def _taken(base, digits, path, **settings):
    overrides = {**RESNET, "distill.teacher.weights": str(path)}
    return make_teacher(
        with_overrides(base, overrides | {f"distill.teacher.{k}": v for k, v in settings.items()}), digits, CPU
    )


def test_own_model_is_trained_and_measured(own, digits):
    assert own.accuracy > 0.3, "chance is 0.1"
    assert own.accuracy == accuracy_of(own.network, lambda x: own.network(x).logits, digits.validation, digits, 17)
    assert own.calibration.num_images == len(digits.validation)
    assert own.calibration.nll_fitted <= own.calibration.nll
    assert (own.genotype, own.shape, own.tap_channels, own.tap_sides) == (None, None, (8, 8, 16), (8, 4, 2))
    assert not any(module.training for module in own.network.modules())
    assert not any(parameter.requires_grad for parameter in own.network.parameters())


def test_own_model_is_the_same_under_the_same_seed(base, digits):
    config = with_overrides(base, {**OWN, "distill.teacher.epochs": 1})
    state = torch.get_rng_state()
    first, other = (make_teacher(with_overrides(config, {"seed": seed}), digits, CPU) for seed in (0, 1))
    torch.manual_seed(9)
    torch.rand(3)
    again = make_teacher(config, digits, CPU)
    torch.set_rng_state(state)
    weights = [list(teacher.network.state_dict().values()) for teacher in (first, again, other)]
    assert all(map(torch.equal, weights[0], weights[1])), "dropout and weights depend on the seed alone"
    assert not all(map(torch.equal, weights[0], weights[2]))


def test_no_teacher_ever_learns_from_validation_images(base, digits):
    config = with_overrides(base, {**OWN, "distill.teacher.epochs": 1})
    few = dataclasses.replace(digits, validation=digits.validation.select(np.arange(7)))
    weights = [list(make_teacher(config, data, CPU).network.state_dict().values()) for data in (digits, few)]
    assert all(map(torch.equal, *weights))


def test_own_model_is_saved_loaded_and_imitated(own, base, digits, tmp_path):
    save_teacher(tmp_path, own)
    again = load_teacher(read_teacher(tmp_path, "own_models:Small"), CPU)
    assert (again.accuracy, again.calibration, again.outline) == (own.accuracy, own.calibration, own.outline)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(again.predict(images).logits, own.predict(images).logits)
    assert all(map(torch.equal, again.predict(images).taps, own.predict(images).taps))
    for kind in ("logits+features", "factor"):
        config = with_overrides(base, {**OWN, "distill.kind": kind, "train.epochs": 2})
        report = next(search(SearchState.start(config, digits, again, run="r", trial="t")))
        assert report.kd_loss > 0


def test_own_model_of_somebody_elses_folder_is_not_made(own, tmp_path):
    """To follow a name in a file is to run whatever code it names."""
    save_teacher(tmp_path, own)
    for factory in (None, "own_models:Other"):
        with pytest.raises(RunFolderError, match="made by own_models:Small, which the configuration does not name"):
            load_teacher(read_teacher(tmp_path, factory), CPU)
    description = json.loads((tmp_path / "teacher.json").read_text())
    description["outline"]["model"] = "os:getcwd"
    write_json(tmp_path / "teacher.json", description)
    with pytest.raises(RunFolderError, match="made by os:getcwd, which the configuration does not name"):
        load_teacher(read_teacher(tmp_path, "own_models:Small"), CPU)


@pytest.mark.parametrize("damage", ["outline", "sides", "taps", "weights"])
def test_own_model_that_is_damaged_is_refused(damage, own, tmp_path):
    file = save_teacher(tmp_path, own)
    description = json.loads(file.description)
    if damage == "outline":
        description["outline"] = []
    elif damage == "sides":
        description["outline"]["sides"] = ["eight"]
    elif damage == "taps":
        description["outline"]["taps"] = ["first", "nowhere", "third"]
    else:
        file = dataclasses.replace(file, weights=file.weights[:-4])
    file = dataclasses.replace(file, description=json.dumps(description))
    with pytest.raises((RunFolderError, ConfigError)):
        load_teacher(file, CPU)


def test_own_model_takes_the_weights_of_a_teacher_that_was_saved(own, base, digits, tmp_path):
    save_teacher(tmp_path, own)
    settings = {**OWN, "distill.teacher.weights": str(tmp_path / "teacher.safetensors")}
    taken = make_teacher(with_overrides(base, settings), digits, CPU)
    assert taken.accuracy == own.accuracy
    assert all(map(torch.equal, taken.network.state_dict().values(), own.network.state_dict().values()))


@pytest.mark.parametrize("ending", ["pth", "safetensors", "nested", "parallel"])
def test_torchvision_weights_are_taken_from_a_checkpoint(ending, base, digits, tmp_path):
    weights, path = _resnet_weights(), tmp_path / f"resnet18.{ending}"
    if ending == "safetensors":
        safetensors.torch.save_file(weights, path)
    elif ending == "nested":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    else:
        torch.save({f"module.{k}": v for k, v in weights.items()} if ending == "parallel" else weights, path)
    teacher = _taken(base, digits, path)
    kept = teacher.network.model.state_dict()
    assert all(torch.equal(kept[name], weights[name]) for name in weights), "it is not trained"
    assert teacher.tap_channels == (128, 256, 512)
    assert len(teacher.outline.scale) == len(IMAGENET_MEAN)
    assert 0 <= teacher.accuracy < 0.4


def test_torchvision_weights_of_other_classes_are_trained_further_if_asked(base, digits, tmp_path):
    torch.save(_resnet_weights(1000), tmp_path / "imagenet.pth")
    with pytest.raises(
        ConfigError, match=r"teacher\.weights: got 'a model of 1000 classes'; allowed: 10 classes, .*tr"
    ):
        _taken(base, digits, tmp_path / "imagenet.pth")
    few = dataclasses.replace(digits, train=digits.train.select(np.arange(64)))
    trained = _taken(base, few, tmp_path / "imagenet.pth", train=True, epochs=1, learning_rate=1e-4)
    assert trained.images == ImageShape(in_channels=1, image_size=8, num_classes=10)
    difference = trained.network.model.conv1.weight - _resnet_weights(1000)["conv1.weight"]
    assert 0 < difference.abs().max() < 1e-3, "it went on from there"


def _renamed(weights):
    return {("stem" + name if name.startswith("conv1") else name): value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "fc.bias"}, r"got '.*without 'fc\.bias''|without 'fc.bias'"),
        (_renamed, r"without 'conv1\.weight'"),
        (lambda w: w | {"extra": torch.zeros(1)}, r"with 'extra'"),
        (lambda w: w | {"conv1.weight": torch.zeros(64, 3, 5, 5)}, r"conv1\.weight of shape \(64, 3, 5, 5\)'; allowed"),
        (lambda w: w | {"fc.bias": torch.full((10,), torch.nan)}, r"values that are no numbers"),
    ],
)
def test_torchvision_weights_of_another_model(change, words, base, digits, tmp_path):
    torch.save(change(_resnet_weights()), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=rf"distill\.teacher\.weights: .*{words}"):
        _taken(base, digits, tmp_path / "other.pth")


class _Trap:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", ["trap", "module", "text", "empty", "tensor", "half"])
def test_checkpoint_that_is_none_or_hostile(content, base, digits, tmp_path, capsys):
    path = tmp_path / "hostile.pth"
    if content == "trap":
        torch.save({"fc.weight": _Trap()}, path)
    elif content == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif content == "tensor":
        torch.save({"weights": 3, "fc.bias": torch.zeros(1)}, path)
    elif content == "half":
        torch.save(_resnet_weights(), path)
        path.write_bytes(path.read_bytes()[:100_000])
    else:
        path.write_bytes(b"no weights, a text" if content == "text" else b"")
    with pytest.raises(WeightsError, match="hostile"):
        _taken(base, digits, path)
    assert capsys.readouterr().out == ""


def test_checkpoint_that_is_missing(base, digits, tmp_path):
    with pytest.raises(ConfigError, match=r"teacher\.weights: got '.*none\.pth'; allowed: a readable checkpoint"):
        _taken(base, digits, tmp_path / "none.pth")


def test_saved_teacher_is_taken_and_measured_anew(base, digits, small_teacher, tmp_path):
    save_teacher(tmp_path / "t", dataclasses.replace(small_teacher, accuracy=0.99))
    config = with_overrides(base, {"distill.teacher.source": "saved", "distill.teacher.weights": str(tmp_path / "t")})
    teacher = make_teacher(config, digits, CPU)
    assert teacher.accuracy == small_teacher.accuracy
    assert teacher.calibration.num_images == len(digits.validation)
    assert all(map(torch.equal, teacher.network.state_dict().values(), small_teacher.network.state_dict().values()))


@pytest.fixture
def exported(digits, small_teacher, tmp_path):
    """A network that was retrained on images normalised otherwise; returns its folder and what it was told."""
    others = dataclasses.replace(digits, mean=(0.25,), std=(0.5,))
    spec = NetworkSpec(
        origin="search", genotype=small_teacher.genotype, init_channels=small_teacher.shape.init_channels
    )

    def write(folder, spec=spec, network=small_teacher.network, split="validation"):
        write_network(folder, network, spec, others, {"split": split})
        return folder

    return write


def _imitating(base, weights):
    return with_overrides(base, {"distill.teacher.source": "saved", "distill.teacher.weights": str(weights)})


def test_retrained_network_teaches_with_its_own_normalisation(exported, base, digits, small_teacher, tmp_path):
    folder = exported(tmp_path / "job")
    teacher = make_teacher(_imitating(base, folder), digits, CPU)
    pixels = torch.rand(5, 1, 8, 8)
    images = (pixels - digits.mean[0]) / digits.std[0]
    expected = small_teacher.network((pixels - 0.25) / 0.5)
    torch.testing.assert_close(teacher.predict(images).logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert teacher.calibration.num_images == len(digits.validation)
    again = load_teacher(save_teacher(tmp_path / "t", teacher), CPU)
    assert torch.equal(again.predict(images).logits, teacher.predict(images).logits)
    state = SearchState.start(_imitating(base, folder), digits, again, run="r", trial="t00")
    assert next(iter(search(state))).kd_loss > 0


def test_exported_file_teaches_and_says_if_it_has_seen_the_held_out_images(exported, base, digits, tmp_path):
    folder = exported(tmp_path / "job", split="test")
    file = tmp_path / "net.safetensors"
    (folder / "weights.safetensors").rename(file)
    (folder / "network.json").rename(tmp_path / "net.json")
    with pytest.warns(UserWarning, match="was trained on the held-out images of the search too"):
        teacher = make_teacher(_imitating(base, file), digits, CPU)
    assert teacher.renormalisation is not None


def test_exported_network_of_torchvision_is_no_saved_teacher(exported, base, digits, tmp_path):
    spec = NetworkSpec(origin="torchvision", model="resnet18", width=0.1)
    network = build(spec, ImageShape(in_channels=1, image_size=8, num_classes=10))
    folder = exported(tmp_path / "job", spec, network)
    with pytest.raises(ConfigError, match=r"got 'resnet18 in .*'; allowed: a network of a genotype"):
        make_teacher(_imitating(base, folder), digits, CPU)


@pytest.mark.parametrize(
    "damage", [{"scale": [1.0, 2.0], "shift": [0.0, 0.0]}, {"scale": [float("inf")], "shift": [0]}]
)
def test_teacher_with_a_renormalisation_that_is_none_is_refused(damage, small_teacher, tmp_path):
    file = save_teacher(tmp_path / "t", small_teacher)
    described = json.loads(file.description) | {"renormalisation": damage}
    with pytest.raises(RunFolderError):
        load_teacher(dataclasses.replace(file, description=json.dumps(described)), CPU)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("classes", r"got 'a teacher for images of 10 classes'; allowed: 7 classes"),
        ("size", r"got 'a teacher for images of 8 pixels a side'; allowed: 4 pixels"),
        ("none", r"got .*allowed: a folder that `dnad-ray teacher` wrote"),
    ],
)
def test_saved_teacher_of_other_images(change, words, base, digits, small_teacher, tmp_path):
    if change != "none":
        save_teacher(tmp_path / "t", small_teacher)
    data = digits
    if change == "classes":
        data = dataclasses.replace(digits, classes=digits.classes[:7])
    elif change == "size":
        parts = [
            Split(images=part.images[..., :4, :4], labels=part.labels) for part in (digits.train, digits.validation)
        ]
        data = dataclasses.replace(digits, train=parts[0], validation=parts[1])
    config = with_overrides(base, {"distill.teacher.source": "saved", "distill.teacher.weights": str(tmp_path / "t")})
    with pytest.raises(ConfigError, match=rf"distill\.teacher\.weights: {words}"):
        make_teacher(config, data, CPU)


def _genotype(operation):
    node = (Edge(operation, 0), Edge(operation, 1))
    return Genotype(tuple(CellGenotype(index > 0, (node,)) for index in range(3)))


def test_best_of_an_earlier_run_is_the_teachers_topology(base, a_snapshot, tmp_path):
    folder = create_run(tmp_path / "earlier", {}, "0")
    found = [
        ("skip_connect", 0.8, 500),
        ("sep_conv_3x3", 0.9, 1000),
        ("max_pool_3x3", 0.9, 900),
        ("conv_7x1_1x7", 0.1, 1),
    ]
    for step, (operation, accuracy, macs) in enumerate(found):
        genotype = _genotype(operation)
        row = dataclasses.replace(
            a_snapshot,
            run="earlier",
            step=step,
            digest=genotype.digest,
            proxy_accuracy=accuracy,
            macs=macs,
            trial="t00",
        )
        write_snapshot(folder, row, genotype)
    assert best_of_front(str(folder)) == _genotype("max_pool_3x3"), "of the two best the cheaper one"
    config = with_overrides(base, {"distill.teacher.genotype": str(folder)})
    assert teacher_genotype(config) == _genotype("max_pool_3x3")


def test_best_of_a_run_that_found_nothing(base, tmp_path):
    folder = create_run(tmp_path / "earlier", {}, "0")
    with pytest.raises(ConfigError, match=r"teacher\.genotype: got '.*earlier'; allowed: a run with a snapshot"):
        teacher_genotype(with_overrides(base, {"distill.teacher.genotype": str(folder)}))
    (tmp_path / "g.json").write_text(_genotype("skip_connect").to_json())
    assert best_of_front(str(tmp_path / "g.json")) is None
    assert place(str(folder)) == folder


def test_teacher_that_diverges(base, digits):
    config = with_overrides(base, {**OWN, "distill.teacher.learning_rate": 1e30, "distill.teacher.epochs": 1})
    with pytest.raises((NonFiniteLossError, ConfigError), match=r"teacher"):
        make_teacher(config, digits, CPU)
