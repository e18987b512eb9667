"""The teacher: trained for a moment, written, read back, and refused where it is damaged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import DataConfig, with_overrides
from dnad_ray.data.images import Split
from dnad_ray.data.loading import load_data
from dnad_ray.distill.teacher import Teacher, TeacherFile, check_teacher, load_teacher, read_teacher, save_teacher
from dnad_ray.distill.teacher_sources import teacher_genotype, train_teacher
from dnad_ray.errors import ConfigError, GenotypeError, NonFiniteLossError, RunFolderError
from dnad_ray.storage.checksums import parse_record
from dnad_ray.training.evaluate import accuracy_of
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape

CPU = torch.device("cpu")
CONFIG = with_overrides(
    recipe_named("smoke"),
    {"train.batch_size": 32, "distill.teacher": {"init_channels": 4, "epochs": 3, "learning_rate": 1e-2}},
)


@pytest.fixture(scope="module")
def data():
    """Digits, of which 600 are for training."""
    digits = load_data(DataConfig())
    return dataclasses.replace(digits, train=_first(digits.train, 600))


@pytest.fixture(scope="module")
def trained(data):
    steps = []
    state = torch.get_rng_state()
    teacher = train_teacher(CONFIG, data, CPU, lambda done, total: steps.append((done, total)))
    assert torch.equal(torch.get_rng_state(), state), "training draws from no global stream"
    return teacher, steps


def _first(split, number):
    return Split(images=split.images[:number], labels=split.labels[:number])


def _short(**overrides):
    return with_overrides(CONFIG, {"distill.teacher.epochs": 1} | overrides)


def _genotype(*halving):
    node = (Edge("skip_connect", 0), Edge("max_pool_3x3", 1))
    return Genotype(tuple(CellGenotype(flag, (node,)) for flag in halving))


def _untrained():
    torch.manual_seed(0)
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=2)
    genotype = _genotype(False, True, True)
    return Teacher(network_from(genotype, shape).eval().requires_grad_(False), genotype, shape, 0.125)


def test_teacher_of_other_classes_is_refused(trained, data, tmp_path):
    save_teacher(tmp_path, trained[0])
    again = load_teacher(read_teacher(tmp_path), CPU)
    assert again.classes == trained[0].classes == tuple("0123456789")
    others = dataclasses.replace(data, classes=("0", "one", *"23456789"))
    with pytest.raises(
        ConfigError, match=r"^there: got a teacher whose class 1 is '1'; allowed: 'one', as class 1 of "
    ):
        check_teacher(again, others, CONFIG.distill, CONFIG.space.stem, "there")
    unknown = dataclasses.replace(again, classes=())  # as a teacher of an earlier version
    check_teacher(unknown, others, CONFIG.distill, CONFIG.space.stem, "there")


def test_train_learns_digits(trained, data):
    teacher, steps = trained
    assert teacher.accuracy > 0.5, "chance is 0.1"
    again = accuracy_of(teacher.network, lambda x: teacher.network(x).logits, data.validation, data, 17)
    assert again == teacher.accuracy
    assert steps == [(done, 54) for done in range(1, 55)], "3 epochs of 600 // 32 steps"


def test_train_leaves_a_frozen_network(trained):
    teacher, _ = trained
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert teacher.shape == NetworkShape(
        images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=4
    )
    assert teacher.network.tap_channels == (8, 16, 32)


def test_train_default_topology_is_separable_convolutions_on_both_inputs():
    node = (Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1))
    expected = Genotype(tuple(CellGenotype(index in (1, 2), (node, node)) for index in range(3)))
    assert teacher_genotype(CONFIG) == expected


def test_train_same_seed_same_teacher(data):
    data = dataclasses.replace(data, train=_first(data.train, 128))
    teachers = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed), np.random.seed(global_seed)  # noqa: NPY002
        teachers.append(train_teacher(_short(seed=seed), data, CPU).network.state_dict())
    assert all(torch.equal(teachers[0][name], teachers[1][name]) for name in teachers[0])
    assert not all(torch.equal(teachers[0][name], teachers[2][name]) for name in teachers[0])


def test_train_never_learns_from_validation_images(data):
    data = dataclasses.replace(data, train=_first(data.train, 64))
    networks = []
    for validation in (_first(data.validation, 50), _first(data.validation, 7)):
        teacher = train_teacher(_short(), dataclasses.replace(data, validation=validation), CPU)
        networks.append(teacher.network.state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_train_stops_at_a_loss_that_is_no_number(data):
    data = dataclasses.replace(data, train=_first(data.train, 128))
    with pytest.raises(
        NonFiniteLossError,
        match=r"teacher's loss became (nan|inf) at step 1 \(epoch 1\); lower distill\.teacher\.learning_rate",
    ):
        train_teacher(_short(**{"distill.teacher.learning_rate": 1e30}), data, CPU)


def test_genotype_comes_from_the_configured_file(tmp_path):
    genotype, file = _genotype(False, True, False, True), tmp_path / "teacher.json"
    file.write_text(genotype.to_json())
    config = _short(**{"distill.teacher.genotype": str(file), "distill.kind": "logits+features"})
    assert teacher_genotype(config) == genotype


def test_genotype_needs_as_many_stages_as_are_imitated(tmp_path):
    file = tmp_path / "teacher.json"
    file.write_text(_genotype(False, True, False).to_json())
    settings = {"distill.teacher.genotype": str(file)}
    with pytest.raises(ConfigError, match=r"distill\.teacher\.genotype: .*3 stages, that is with 2 reduction cells"):
        teacher_genotype(_short(**settings, **{"distill.kind": "features"}))
    assert teacher_genotype(_short(**settings)).num_operations == 6, "logits do not mind"


def test_genotype_file_that_cannot_be_used(tmp_path):
    with pytest.raises(RunFolderError, match="no_such_file"):
        teacher_genotype(_short(**{"distill.teacher.genotype": str(tmp_path / "no_such_file.json")}))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(GenotypeError, match="dnad-ray genotype"):
        teacher_genotype(_short(**{"distill.teacher.genotype": str(tmp_path / "other.json")}))


def test_save_and_load_give_the_same_outputs(trained, tmp_path):
    teacher, _ = trained
    file = save_teacher(tmp_path, teacher)
    assert read_teacher(tmp_path).weights == file.weights
    assert parse_record(read_teacher(tmp_path).description, "teacher.json") == json.loads(file.description)
    images = torch.randn(5, 1, 8, 8)
    expected = teacher.network(images)
    state = torch.get_rng_state()
    for source in (file, read_teacher(tmp_path)):
        again = load_teacher(source, CPU)
        assert (again.genotype, again.shape, again.accuracy) == (teacher.genotype, teacher.shape, teacher.accuracy)
        assert not any(module.training for module in again.network.modules())
        assert not any(parameter.requires_grad for parameter in again.network.parameters())
        output = again.network(images)
        torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=0)
        for tap, wanted in zip(output.taps, expected.taps, strict=True):
            torch.testing.assert_close(tap, wanted, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state), "loading draws from no global stream"


def test_read_where_nothing_or_only_half_was_written(tmp_path):
    assert read_teacher(tmp_path) is None
    assert read_teacher(tmp_path / "missing") is None
    save_teacher(tmp_path, _untrained())
    (tmp_path / "teacher.json").unlink()  # it is written last
    assert read_teacher(tmp_path) is None


def _damaged(file):
    """Every way in which a teacher can be broken, by name."""
    description = json.loads(file.description)

    def other(**changes):
        return dataclasses.replace(file, description=json.dumps(description | changes))

    def without(key):
        return dataclasses.replace(file, description=json.dumps({k: v for k, v in description.items() if k != key}))

    middle = len(file.weights) - 20
    flipped = file.weights[:middle] + bytes([file.weights[middle] ^ 1]) + file.weights[middle + 1 :]
    return {
        "no JSON": dataclasses.replace(file, description=file.description[:-5]),
        "a list": dataclasses.replace(file, description="[]"),
        "no genotype": without("genotype"),
        "no shape": without("shape"),
        "no accuracy": without("accuracy"),
        "no checksum": without("sha256"),
        "foreign genotype": other(genotype={"kind": "something else"}),
        "another genotype": other(genotype=_genotype(False, True, True, False).to_dict()),
        "another width": other(shape=description["shape"] | {"init_channels": 3}),
        "unknown stem": other(shape=description["shape"] | {"stem": "mnist"}),
        "shape with another key": other(shape=description["shape"] | {"depth": 3}),
        "no number": other(accuracy="high"),
        "no weights": TeacherFile(file.description, b""),
        "half of the weights": TeacherFile(file.description, file.weights[: len(file.weights) // 2]),
        "a flipped bit": TeacherFile(file.description, flipped),
    }


NAMES = list(_damaged(TeacherFile('{"shape": {}}', bytes(100))))


@pytest.mark.parametrize("name", NAMES)
def test_load_refuses_damage(name, tmp_path):
    file = save_teacher(tmp_path, _untrained())
    load_teacher(file, CPU)
    with pytest.raises(RunFolderError, match=r"teacher: got .*; allowed: an intact teacher\.json"):
        load_teacher(_damaged(file)[name], CPU)


def test_load_refuses_weights_of_another_network(tmp_path):
    """Both files are whole, but one of them belongs to another teacher; the checksum is made to fit."""
    file = save_teacher(tmp_path, _untrained())
    weights = safetensors.torch.load(file.weights)
    weights.pop("classifier.linear.bias")
    other = Teacher(torch.nn.Module(), _genotype(False, True, True), _untrained().shape, 0.5)
    other.network.state_dict = lambda: weights
    with pytest.raises(RunFolderError, match="intact"):
        load_teacher(save_teacher(tmp_path, other), CPU)


def test_load_refuses_bytes_that_are_no_text(tmp_path):
    save_teacher(tmp_path, _untrained())
    (tmp_path / "teacher.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RunFolderError, match="intact"):
        load_teacher(read_teacher(tmp_path), CPU)


def test_save_keeps_what_the_validation_images_say(trained, tmp_path):
    teacher, _ = trained
    found = json.loads(save_teacher(tmp_path, teacher).description)["calibration"]
    assert found == dataclasses.asdict(teacher.calibration)
    assert load_teacher(read_teacher(tmp_path), CPU).calibration == teacher.calibration
    older = parse_record((tmp_path / "teacher.json").read_bytes(), "teacher")
    del older["calibration"]  # as versions before wrote it
    file = dataclasses.replace(read_teacher(tmp_path), description=json.dumps(older))
    assert load_teacher(file, CPU).calibration is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_a_gpu_is_near_float32(trained, tmp_path):
    teacher = load_teacher(save_teacher(tmp_path, trained[0]), torch.device("cuda"))
    images = torch.randn(16, 1, 8, 8, device="cuda")
    full, half = teacher.predict(images), teacher.predict(images, half=True)
    assert half.logits.dtype == torch.float32
    assert not torch.equal(full.logits, half.logits)
    torch.testing.assert_close(half.logits, full.logits, rtol=0.05, atol=0.05)
