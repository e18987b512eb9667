"""Retraining as on ImageNet: a folder of JPEG files at 224 x 224, decoded by workers, by the mobile protocol."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import DataConfig
from dnad_ray.data.imagenet_augmentation import augmented_as_imagenet
from dnad_ray.data.streaming import FileSplit
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.data import load_retrain_images
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.runtime.stopping import StopRequest
from dnad_ray.training.loop import train
from search_spaces.space import space_named

GENOTYPE = space_named("dnad", ("sep_conv_3x3", "skip_connect"), 3, 1).uniform(("sep_conv_3x3",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 training and 8 test photographs of two classes, none of them square: bright ones and dark ones."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, number in (("train", 16), ("test", 4)):
        for label, level in (("dark", 60), ("bright", 190)):
            (root / part / label).mkdir(parents=True)
            for index in range(number):
                pixels = generator.normal(level, 40, (260, 300, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{index}.jpg", quality=70)
    return root


@pytest.fixture(scope="module")
def images(folder):
    config = DataConfig(name="imagefolder", root=str(folder), image_size=224, storage="disk", workers=1)
    return load_retrain_images(config)


def settings(**given):
    small = {"epochs": 2, "warmup_epochs": 1, "batch_size": 16, "init_channels": 4, "device": "cpu"}
    return with_settings(retrain_recipe("imagenet-mobile"), small | given)


def started(images, config):
    spec = NetworkSpec(origin="genotype", genotype=GENOTYPE, init_channels=4, stem="imagenet")
    return RetrainState(spec, config, images.data, 0)


def test_images_stay_on_disk_and_join_train_and_validation(images):
    assert isinstance(images.data.train, FileSplit)
    assert (len(images.data.train), len(images.data.validation), images.split) == (32, 8, "test")
    assert images.data.image_size == 224
    assert all("/train/" in path for path in images.data.train.paths)


@pytest.mark.slow
def test_training_at_224_pixels_stopped_and_resumed_has_the_same_bits(images):
    config = settings(ema_decay=0.9)
    whole = started(images, config)
    list(train(whole))
    first = started(images, config)
    events = list(train(first, lambda: StopRequest("enough") if first.step == 3 else None))
    assert isinstance(events[-1], StopRequest)
    second = started(images, config)
    second.load_state_dict(first.state_dict())
    list(train(second))
    assert second.history[-1]["train_loss"] == whole.history[-1]["train_loss"]
    ours, theirs = second.trained().state_dict(), whole.trained().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_retrain_command_on_a_folder_at_224_pixels(command, folder, tmp_path):
    genotype = tmp_path / "g.json"
    genotype.write_text(GENOTYPE.to_json())
    code, _, err = command(
        "retrain", genotype, "--recipe", "imagenet-mobile", "--data", folder, "--image-size", 224, "--no-ray",
        "--out", tmp_path / "run", "--epochs", 1, "--set", "warmup_epochs=0", "--set", "batch_size=16",
        "--set", "init_channels=4", "--set", "data.storage=disk", "--set", "data.workers=0", "--set", "device=cpu",
    )  # fmt: skip
    assert code == 0, err
    (record,) = read_retrained(tmp_path / "run")[0]
    assert (record["image_size"], record["num_classes"], record["split"]) == (224, 2, "test")
    job = json.loads((tmp_path / "run" / "retrained" / record["job"] / "job.json").read_text())
    assert (job["network"]["stem"], job["settings"]["label_smoothing"]) == ("imagenet", 0.1)


MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


def normalised(pixels):
    return (pixels - MEAN[:, None, None]) / STD[:, None, None]


def test_variation_is_a_function_of_its_seed_and_stays_within_colours():
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = [augmented_as_imagenet(normalised(pixels), MEAN, STD, seed) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    back = found[0] * STD[:, None, None] + MEAN[:, None, None]
    assert back.min() > -1e-5
    assert back.max() < 1 + 1e-5
    assert found[0].shape == pixels.shape


def test_variation_crops_between_a_twelfth_and_the_whole_and_mirrors_half_of_the_images():
    # A ramp from left to right: its slope in the result tells the width of the crop, its sign the mirror.
    ramp = torch.linspace(0.3, 0.5, 64).expand(2000, 1, 64, 64)
    zero, one = torch.zeros(1), torch.ones(1)
    found = augmented_as_imagenet(ramp, zero, one, 0)[:, 0, 32, :]
    slopes = found[:, 48] - found[:, 16]
    mirrored = (slopes < 0).float().mean()
    assert 0.45 < mirrored < 0.55
    # 32 of 64 pixels of the whole ramp are half of 0.2; brightness and contrast add up to 1.4 * 1.4.
    assert slopes.abs().max() < 0.1 * 1.4**2 + 0.01
    assert slopes.abs().min() > 0.1 * (0.08 * 0.75) ** 0.5 * 0.6**2 - 0.005


def test_variation_keeps_the_memory_format():
    images = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert augmented_as_imagenet(images, MEAN, STD, 0).is_contiguous(memory_format=torch.channels_last)
