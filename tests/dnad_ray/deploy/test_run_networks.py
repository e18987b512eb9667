"""Networks of a run: how many channels their images have, as the records say, or as follows from the data."""

from __future__ import annotations

import dataclasses

import pytest

from dnad_ray.config.run import config_to_dict
from dnad_ray.deploy.run_networks import networks_of
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.writing import create_run, write_snapshot
from search_spaces.space import space_named

GENOTYPE = space_named("dnad", None, 3, 2).uniform(("skip_connect",))


@pytest.fixture
def run_of(tiny, a_snapshot, tmp_path):
    """Make a run with one snapshot; returns its folder, configuration and front."""

    def make(overrides, **said):
        config = tiny(overrides)
        folder = create_run(tmp_path / "demo", config_to_dict(config), "0.1")
        record = dataclasses.replace(a_snapshot, digest=GENOTYPE.digest, image_size=16, num_classes=7, **said)
        write_snapshot(folder, record, GENOTYPE)
        return folder, config, [record.to_dict()]

    return make


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_a_run_take_images_as_recorded(channels, run_of):
    # The record is about this trial's images; the name of a dataset says less.
    ((spec, images),) = networks_of(*run_of({"data.name": "digits"}, in_channels=channels))
    assert (spec.digest, spec.init_channels) == (GENOTYPE.digest, 8)
    assert (images.in_channels, images.image_size, images.num_classes) == (channels, 16, 7)


@pytest.mark.parametrize(("name", "channels"), [("digits", 1), ("fashion_mnist", 1), ("cifar10", 3), ("svhn", 3)])
def test_networks_of_an_older_run_take_images_of_its_dataset(name, channels, run_of):
    ((_, images),) = networks_of(*run_of({"data.name": name, "data.root": "data"}, in_channels=0))
    assert images.in_channels == channels


def test_networks_of_an_older_run_on_a_folder_of_images_are_not_guessed(run_of):
    run = run_of({"data.name": "imagefolder", "data.root": "photos"}, in_channels=0)
    with pytest.raises(RunFolderError, match=r"RUN: got .*says the channels of its images"):
        networks_of(*run)


def test_networks_of_a_run_without_any_is_refused(run_of):
    folder, config, _ = run_of({})
    with pytest.raises(RunFolderError, match="a run with snapshots or with retrained networks"):
        networks_of(folder, config, [])
