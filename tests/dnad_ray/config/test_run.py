"""Configurations: what is refused and in which words, overrides, and the order of trials."""

from __future__ import annotations

import copy
import re

import pytest
import yaml
from pydantic import ValidationError

from dnad_ray.config.recipes import RECIPES
from dnad_ray.config.run import (
    DistillConfig,
    FloorConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    parse_assignment,
    with_overrides,
)
from dnad_ray.errors import ConfigError

LOGITS = RunConfig(distill=DistillConfig(kind="logits"))


def _grid(config=LOGITS, num_trials=None, **changes):
    """Return a configuration with a grid; a dot is written as two underscores."""
    grid = {key.replace("__", "."): values for key, values in changes.items()}
    return with_overrides(config, {"sweep.grid": grid, "sweep.num_trials": num_trials})


def _leaves(data, prefix=""):
    for name, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def test_defaults_are_the_release():
    config = config_from_dict({})
    assert config == RunConfig()
    assert (config.train.epochs, config.train.batch_size, config.train.learning_rate) == (120, 128, 5e-4)
    assert (config.train.betas, config.train.weight_decay, config.train.grad_clip) == ((0.5, 0.999), 3e-4, 5)
    assert (config.train.arch_learning_rate, config.train.arch_momentum) == (0.2, 0)
    assert (config.space.num_cells, config.space.num_nodes, config.space.init_channels) == (8, 4, 16)
    assert (config.shrink.gamma_init, config.shrink.gamma_max, config.shrink.smoothing) == (1e-4, 0.1, 0.9)
    assert (config.shrink.mu, config.shrink.mu_growth, config.shrink.baseline) == (0.1, 1.5, 0.01)
    assert config.shrink.floor == FloorConfig(sparsity=250)
    assert (config.distill.kind, config.distill.weight, config.distill.stage_ratios) == ("features", 1, (0.2, 0.3, 0.5))


@pytest.mark.parametrize("name", RECIPES)
def test_round_trip_through_yaml(name):
    config = RECIPES[name]()
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
    assert config_from_dict(yaml.safe_load(text)) == config
    assert yaml.safe_dump(config_to_dict(config_from_dict(yaml.safe_load(text))), sort_keys=False) == text


def test_every_field_has_a_line_of_documentation():
    def check(model):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(RunConfig)


def test_frozen():
    config = RunConfig()
    for thing, name in ((config, "seed"), (config.train, "epochs"), (config.distill.teacher, "epochs")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(thing, name, 7)
    with pytest.raises(ValidationError, match="no_such_key"):
        TrainConfig(no_such_key=1)


@pytest.mark.parametrize(
    ("data", "key", "allowed"),
    [
        ({"shrnk": {}}, "'shrnk'", "seed, data, space, train, shrink, distill, evaluation, limit, sweep"),
        ({"shrink": {"rat": 0.1}}, r"'shrink\.rat'", "rate, baseline"),
        ({"shrink": {"floor": {"flops": 1}}}, r"'shrink\.floor\.flops'", "macs, operations, sparsity"),
        ({"distill": {"teacher": {"epoch": 1}}}, r"'distill\.teacher\.epoch'", "init_channels, epochs"),
    ],
)
def test_unknown_key(data, key, allowed):
    with pytest.raises(ConfigError, match=rf"my\.yaml: unknown key: got {key}; allowed: one of {allowed}"):
        config_from_dict(data, "my.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("seed", "one"),
        ("data.image_size", 3),
        ("data.validation_share", 0),
        ("data.validation_share", 1),
        ("data.augment", "auto-augment"),
        ("data.storage", "tape"),
        ("data.workers", -1),
        ("data.workers", 257),
        ("space.num_cells", 0),
        ("space.init_channels", 1),
        ("space.stem", "mnist"),
        ("train.epochs", 0),
        ("train.epochs", 1.5),
        ("train.warmup_epochs", -1),
        ("train.learning_rate", 0),
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", float("inf")),
        ("train.betas", [0.5, 1.0]),
        ("train.betas", [0.5]),
        ("train.arch_momentum", 1),
        ("train.device", "tpu"),
        ("shrink.rate", 0),
        ("shrink.rate", 1.1),
        ("shrink.baseline", 1),
        ("shrink.gamma_growth", 1),
        ("shrink.mu", -0.1),
        ("shrink.mu_growth", 0.9),
        ("shrink.smoothing", 1),
        ("shrink.stall_epochs", 0),
        ("shrink.floor.operations", 0),
        ("shrink.floor.sparsity", 0),
        ("distill.kind", "imitation"),
        ("distill.kind", "logits+logits"),
        ("distill.kind", "none+logits"),
        ("distill.kind", ""),
        ("distill.weight", -1),
        ("distill.stage_ratios", [1, 1]),
        ("distill.stage_ratios", [1, 1, -1]),
        ("distill.teacher.epochs", 0),
        ("evaluation.recalibration_images", -1),
        ("sweep.num_trials", 0),
        ("sweep.gpus_per_trial", -1),
    ],
)
def test_impossible_value(key, value):
    with pytest.raises(ConfigError, match=rf"my\.yaml: {key}.*: got .*; allowed: [a-z']") as caught:
        config_from_dict(_nested(key, value), "my.yaml")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_impossible_value_is_kept_as_given_and_not_cut_up():
    """Values that look like parts of a message stay whole, and numbers stay numbers."""
    kind = "logits: got lost; allowed: no"
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"distill": {"kind": kind}}, "my.yaml")
    assert (caught.value.argument, caught.value.given) == ("my.yaml: distill.kind", kind)
    assert caught.value.allowed.startswith("none, or a sum (a+b) of some of logits")
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"train": {"epochs": 2, "warmup_epochs": 2}}, "my.yaml")
    assert caught.value.given == 2
    drawn = {"sampler": "random", "num_trials": 2, "ranges": {"shrink.rate": {"uniform": [0.2, 0.1]}}}
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"sweep": drawn}, "my.yaml")
    assert caught.value.argument == "my.yaml: sweep.ranges.shrink.rate.uniform"
    assert (caught.value.given, caught.value.allowed) == ([0.2, 0.1], "the lower bound first")


def test_unknown_key_of_a_range():
    drawn = {"ranges": {"shrink.rate": {"uniformly": [0.1, 0.2]}}}
    with pytest.raises(ConfigError, match=r"'sweep\.ranges\.shrink\.rate\.uniformly'; allowed: one of uniform, loguni"):
        config_from_dict({"sweep": drawn})


@pytest.mark.parametrize("section", ["train", "shrink", "distill"])
def test_section_that_is_no_section(section):
    with pytest.raises(ConfigError, match=f"{section}: got 5; allowed: .*dictionary"):
        config_from_dict({section: 5})


@pytest.mark.parametrize(("epochs", "warmup"), [(3, 3), (3, 4), (1, 1)])
def test_warmup_must_end(epochs, warmup):
    with pytest.raises(ConfigError, match=rf"train\.warmup_epochs: got {warmup}; allowed: less than train\.epochs"):
        config_from_dict({"train": {"epochs": epochs, "warmup_epochs": warmup}})
    assert config_from_dict({"train": {"epochs": epochs, "warmup_epochs": epochs - 1}}).train.epochs == epochs


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "features"}, "kind 'features' and weight 1"),
        ({"kind": "none"}, "kind 'none' and weight 1"),
        ({"kind": "logits", "weight": 0}, "kind 'logits' and weight 0"),
        ({"kind": "logits+features", "weight": 0}, "weight 0"),
        ({}, "kind 'features'"),
    ],
)
def test_temperature_without_effect(settings, words):
    with pytest.raises(ConfigError, match=rf"config: distill\.temperature: got 2, which has no effect with .*{words}"):
        config_from_dict({"distill": settings | {"temperature": 2.0}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "digits", "storage": "disk"}, "storage: got 'disk', which has no effect with name 'digits'"),
        ({"name": "digits", "workers": 2}, "workers: got 2, which has no effect with storage 'auto' and name 'digits'"),
        ({"name": "imagefolder", "storage": "memory", "workers": 0}, "workers: got 0, .* storage 'memory'"),
    ],
)
def test_storage_and_workers_without_effect(settings, words):
    with pytest.raises(ConfigError, match=rf"^config: data\.{words}.*; allowed: .*'imagefolder'"):
        config_from_dict({"data": settings})


def test_storage_and_workers_of_an_image_folder():
    for storage, workers in (("auto", 2), ("disk", 0), ("disk", None), ("memory", None)):
        data = config_from_dict({"data": {"name": "imagefolder", "storage": storage, "workers": workers}}).data
        assert (data.storage, data.workers) == (storage, workers)
    assert config_from_dict({"data": {"storage": "memory"}}).data.storage == "memory"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "logits"}, 4.0),
        ({"kind": "logits+features"}, 4.0),
        ({"kind": "logits", "temperature": None}, 4.0),
        ({"kind": "logits", "temperature": 1.5}, 1.5),
        ({"kind": "features"}, None),
        ({"kind": "none"}, None),
        ({"kind": "logits", "weight": 0}, None),
    ],
)
def test_temperature_is_resolved(settings, expected):
    config = config_from_dict({"distill": settings})
    assert config.distill.temperature == expected
    assert config_to_dict(config)["distill"]["temperature"] == expected


@pytest.mark.parametrize(
    ("kind", "weight", "uses"),
    [
        ("none", 1, (False, False, False)),
        ("logits", 1, (True, False, True)),
        ("features", 1, (False, True, True)),
        ("logits+features", 0.5, (True, True, True)),
        ("logits+features", 0, (False, False, False)),
    ],
)
def test_what_is_imitated(kind, weight, uses):
    config = DistillConfig(kind=kind, weight=weight)
    assert (config.uses_logits, config.uses_features, config.uses_teacher) == uses


def test_stage_ratios_of_zero():
    with pytest.raises(ConfigError, match=r"distill\.stage_ratios: got \(0, 0, 0\); allowed: at least one above 0"):
        config_from_dict({"distill": {"kind": "features", "stage_ratios": [0, 0, 0]}})
    assert config_from_dict({"distill": {"kind": "logits", "stage_ratios": [0, 0, 0]}}).distill.uses_logits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shrink.rate=0.05", ("shrink.rate", 0.05)),
        ("train.learning_rate=1e-3", ("train.learning_rate", 0.001)),  # a string in YAML 1.1
        ("train.learning_rate=1.0e-3", ("train.learning_rate", 0.001)),
        ("train.betas=[0.9, 0.99]", ("train.betas", [0.9, 0.99])),
        ("space.operations=[skip_connect, none]", ("space.operations", ["skip_connect", "none"])),
        ("shrink.floor.macs=null", ("shrink.floor.macs", None)),
        ("shrink.floor.macs=", ("shrink.floor.macs", None)),
        ("data.download=true", ("data.download", True)),
        ("data.name=cifar10", ("data.name", "cifar10")),
        ("data.root=/a=b/c", ("data.root", "/a=b/c")),
        ("data.root=photos #2", ("data.root", "photos #2")),  # a comment in YAML
        ("data.root=2024", ("data.root", "2024")),
        ("data.root=no", ("data.root", "no")),
        ("data.root=2024-01-31", ("data.root", "2024-01-31")),
        ("data.root=[a]: b", ("data.root", "[a]: b")),
        ("data.root='photos #2'", ("data.root", "photos #2")),
        ("data.root='a' or 'b'", ("data.root", "'a' or 'b'")),
        ("data.root=null", ("data.root", None)),
        ("distill.teacher.weights=7", ("distill.teacher.weights", "7")),
        (" seed = 3", ("seed", 3)),
        ("sweep.grid={shrink.rate: [0.1]}", ("sweep.grid", {"shrink.rate": [0.1]})),
    ],
)
def test_parse_assignment(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["seed", "", "=3", "  =3"])
def test_parse_assignment_without_key_or_value(text):
    with pytest.raises(ConfigError, match=r"--set: got .*KEY=VALUE"):
        parse_assignment(text)


def test_text_that_no_file_can_hold_is_refused():
    with pytest.raises(ConfigError, match=r"data\.root: got '.*udcff'; allowed: text that UTF-8 can hold"):
        config_from_dict({"data": {"root": "photos\udcff"}})


def test_broken_images_are_skipped_in_folders_only():
    assert config_from_dict({"data": {"name": "imagefolder", "broken": "skip"}}).data.broken == "skip"
    with pytest.raises(ConfigError, match=r"data\.broken: got 'skip', which has no effect with name 'digits'"):
        config_from_dict({"data": {"broken": "skip"}})


def test_parse_assignment_of_broken_yaml():
    with pytest.raises(ConfigError, match=r"--set train\.betas: got '\[0\.9, '; allowed: a YAML value"):
        parse_assignment("train.betas=[0.9, ")


def test_overrides_replace_and_leave_the_rest():
    config = RECIPES["smoke"]()
    before = copy.deepcopy(config_to_dict(config))
    changed = with_overrides(config, {"shrink.floor.operations": 3, "seed": 9, "train.betas": [0.1, 0.2]})
    assert (changed.shrink.floor.operations, changed.seed, changed.train.betas) == (3, 9, (0.1, 0.2))
    expected = config_to_dict(config)
    expected["shrink"]["floor"]["operations"], expected["seed"], expected["train"]["betas"] = 3, 9, [0.1, 0.2]
    assert config_to_dict(changed) == expected
    assert config_to_dict(config) == before
    assert with_overrides(config, {}) == config


@pytest.mark.parametrize("key", list(_leaves(config_to_dict(RunConfig()))))
def test_overrides_reach_every_key(key):
    value = config_to_dict(RunConfig())
    for name in key.split("."):
        value = value[name]
    assert with_overrides(RunConfig(), {key: value}) == RunConfig()


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("shrnk.rate", "shrink.rate"),
        ("shrink.rat", "shrink.rate"),
        ("epochs", "train.epochs"),
        ("shrink.rate.x", "shrink.rate"),
        ("train.betas.0", "train.betas"),
        ("", "seed, data.name"),  # nothing is close to these: every key is named
        ("a.b.c", "seed, data.name"),
    ],
)
def test_overrides_of_unknown_keys(key, close):
    with pytest.raises(ConfigError, match=rf"--set: got '{key}'; allowed: {re.escape(close)}"):
        with_overrides(RunConfig(), {key: 1})


def test_overrides_of_impossible_values():
    with pytest.raises(ConfigError, match=r"--epochs: train\.epochs: got 0; allowed"):
        with_overrides(RunConfig(), {"train.epochs": 0}, "--epochs")
    with pytest.raises(ConfigError, match=r"--set: train\.warmup_epochs: got 200"):
        with_overrides(RunConfig(), {"train.warmup_epochs": 200})


def test_overrides_of_whole_sections():
    config = with_overrides(RunConfig(), {"distill.teacher": {"epochs": 3}, "distill": {"kind": "none"}})
    assert config.distill == DistillConfig(kind="none")
    assert with_overrides(RunConfig(), {"distill.teacher": {"epochs": 3}}).distill.teacher == TeacherConfig(epochs=3)


def test_overrides_of_one_entry_of_the_grid():
    config = with_overrides(_grid(shrink__rate=[0.1]), {"sweep.grid.distill.temperature": [2, 6]})
    assert config.sweep.grid == {"shrink.rate": (0.1,), "distill.temperature": (2, 6)}
    assert with_overrides(config, {"sweep.grid.shrink.rate": [0.2]}).sweep.grid["shrink.rate"] == (0.2,)


def test_overrides_let_the_default_temperature_follow_the_kind():
    config = LOGITS
    for _ in range(3):  # as the command line does for one option after the other
        config = with_overrides(config, {"train.epochs": 5})
        assert config.distill.temperature == 4.0
    assert with_overrides(config, {"distill.kind": "features"}).distill.temperature is None
    assert with_overrides(config, {"distill.weight": 0}).distill.temperature is None
    assert with_overrides(with_overrides(config, {"distill.kind": "none"}), {"distill.kind": "logits"}) == config


def test_overrides_keep_a_temperature_that_was_asked_for():
    config = with_overrides(LOGITS, {"distill.temperature": 2.0})
    assert with_overrides(config, {"train.epochs": 5}).distill.temperature == 2.0
    with pytest.raises(ConfigError, match=r"distill\.temperature: got 2, which has no effect"):
        with_overrides(config, {"distill.kind": "features"})
    relaxed = with_overrides(config, {"distill.kind": "features", "distill.temperature": None})
    assert relaxed.distill.temperature is None
