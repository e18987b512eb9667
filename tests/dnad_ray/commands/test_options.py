"""Errors about values name the option that gave them, not another one that was given as well."""

from __future__ import annotations

import pytest

from dnad_ray.commands.options import configured, settings_of, with_absolute_paths
from dnad_ray.commands.training import Training, request_of, run_config_of
from dnad_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0, "epochs": 3}, "--image-size: got 0; allowed: greater than or equal to 4"),
        ({"epochs": 0, "settings": ["shrink.rate=0.1"]}, "--epochs: got 0; allowed: greater than or equal to 1"),
        ({"epochs": 3, "settings": ["shrink.rate=0"]}, "--set: shrink.rate: got 0; allowed: greater than 0"),
        ({"epochs": 3, "settings": ["train.epochs=0"]}, "--set: train.epochs: got 0; allowed: greater than or equal"),
        ({"seed": -1}, "--seed: got -1; allowed: greater than or equal to 0"),
        ({"trials": 0}, "--trials: got 0; allowed: greater than or equal to 1"),
        ({"epochs": 1}, r"--epochs: train.warmup_epochs: got .*; allowed: less than train.epochs \(1\)"),
    ],
)
def test_error_of_a_search_names_the_option(options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        configured("images" if options == {"epochs": 1} else "smoke", **options)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (Training(epochs=0), "--epochs: got 0; allowed: greater than or equal to 1"),
        (Training(epochs=3, set=["batch_size=0"]), "--set: batch_size: got 0; allowed: greater than or equal to 2"),
        (Training(epochs=3, set=["epochs=0"]), "--set: epochs: got 0; allowed: greater than or equal to 1"),
        (Training(data="digits", image_size=0), "--image-size: got 0; allowed: greater than or equal to 4"),
        (Training(data="digits", cpus=0, image_size=8), "--cpus: got 0; allowed: greater than 0"),
        (Training(data="digits", cpus=1, set=["data.image_size=0"]), "--set: data.image_size: got 0; allowed: greater"),
    ],
)
def test_error_of_a_training_names_the_option(training, message):
    def asked():
        return request_of(training), run_config_of(None, training)

    with pytest.raises(ConfigError, match=f"^{message}"):
        asked()


def test_paths_mean_the_same_in_every_folder(tmp_path, monkeypatch):
    for name in ("photos", "teacher", "home/photos"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    images = {"data.name": "imagefolder"}
    for given, meant in (("photos", "photos"), ("./photos/..", "."), ("~/photos", "home/photos")):
        asked = configured("smoke", settings=images | {"data.root": given})
        assert asked.data.root == str((tmp_path / meant).resolve())
    settings = {"distill.teacher.source": "saved", "distill.teacher.weights": "teacher"}
    assert configured("images", settings=settings).distill.teacher.weights == str(tmp_path / "teacher")
    for weights in ("s3://bucket/teacher", "missing"):
        asked = configured("images", settings=settings | {"distill.teacher.weights": weights})
        assert asked.distill.teacher.weights == weights
    assert run_config_of(None, Training(data="digits", set=["data.root=photos"])).data.root == str(tmp_path / "photos")
    assert with_absolute_paths(asked) == asked


def test_settings_may_be_paths(tmp_path):
    assert settings_of({"data.root": tmp_path}) == {"data.root": str(tmp_path)}
