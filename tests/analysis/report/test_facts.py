from __future__ import annotations

import dataclasses
import json

import pytest

from analysis.frame import read_runs, snapshot_frame
from analysis.report.facts import facts_of
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.run_folder.images import ClassImages, ImagesRecord
from dnad_ray.run_folder.writing import create_run, write_snapshot


@pytest.fixture
def folder(tmp_path, dense, snapshot):
    """Two networks of 10 and 20 % error, on digits."""
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    for step, accuracy in ((10, 0.9), (20, 0.8)):
        write_snapshot(folder, snapshot(dense(), step=step, proxy_accuracy=accuracy, kd_kind="logits"), dense())
    return folder


def facts(folder, images=None):
    (run,) = read_runs(folder)
    return {fact.label: fact for fact in facts_of(dataclasses.replace(run, images=images), snapshot_frame([run]))}


def images(*counts, num_validation=100):
    """What a run records about its images."""
    return ImagesRecord(
        name="digits",
        classes=tuple(f"class {index}" for index in range(len(counts))),
        image_size=8,
        channels=1,
        num_train=sum(counts),
        num_validation=num_validation,
        num_test=0,
        parts={"train": tuple(ClassImages(count=count) for count in counts)},
    )


def test_facts_of_an_older_run_say_what_is_not_recorded(folder):
    found = facts(folder)
    assert found["Images"].value == "digits, 8 x 8 pixels"
    assert found["Classes"].value == "10"
    assert found["Error of guessing"][1:] == ("90.00%", "where every class has as many images")
    assert found["Error of the teacher"].value == found["Noise of one score"].value == "not recorded"


def test_facts_of_a_run_without_a_search_are_those_of_its_images(tmp_path):
    config = config_to_dict(RunConfig()) | {"distill": {"kind": "none"}}
    found = facts(create_run(tmp_path / "plain", config, "0.0.0"), images(30, 50, 20))
    assert list(found) == ["Images", "Classes", "Error of guessing", "Error of the teacher"]
    assert found["Error of the teacher"][1:] == ("none", "no network is imitated")


def test_facts_of_unequal_classes(folder):
    found = facts(folder, images(30, 50, 20))
    assert found["Images"].note == "100 to train on, 100 held out for the scores"
    assert found["Classes"][1:] == ("3", "class 0, class 1, class 2")
    # To name class 1 always is right for half of the images.
    assert found["Error of guessing"].value == "50.00%"
    assert facts(folder, images(*[5] * 14))["Classes"].note.endswith("class 9 and 4 more")


def test_facts_say_how_far_scores_are_apart_by_chance(folder):
    # sqrt(0.1 x 0.9 / 100) is 3 points; two such scores differ by less than 2 sqrt(2) times that.
    noise = facts(folder, images(50, 50))["Noise of one score"]
    assert noise.value == "+- 3 points"
    assert "100 images at an error of 10.00%" in noise.note
    assert "8.5 points apart are not told apart" in noise.note


def test_facts_of_a_score_without_errors_have_noise_too(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "all", config_to_dict(RunConfig()), "0.0.0")
    write_snapshot(folder, snapshot(dense(), run="all", proxy_accuracy=1.0), dense())
    # As if one image of 100 were wrong: sqrt(0.01 x 0.99 / 100).
    assert facts(folder, images(50, 50))["Noise of one score"].value == "+- 0.99 points"


def test_facts_name_the_teacher_and_its_error(folder, tmp_path, dense, snapshot):
    file = folder / "teacher" / "teacher.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"accuracy": 0.975, "outline": {"model": "resnet18"}}))
    teacher = facts(folder)["Error of the teacher"]
    assert teacher.value == "2.50%"
    assert teacher.note.startswith("resnet18: ")
    for damaged in ('{"accuracy": 7}', '{"accuracy": "0.9"}', '{"accuracy": NaN}', "{", "[]", '{"accuracy": true}'):
        file.write_text(damaged)
        assert facts(folder)["Error of the teacher"].value == "not recorded"
    alone = create_run(tmp_path / "alone", config_to_dict(RunConfig()), "0.0.0")
    write_snapshot(alone, snapshot(dense(), run="alone"), dense())  # of kind none
    assert facts(alone)["Error of the teacher"].value == "none"


def test_facts_of_a_run_without_snapshots(tmp_path):
    found = facts(create_run(tmp_path / "new", config_to_dict(RunConfig()), "0.0.0"))
    assert found["Images"].value == "digits"
    assert {found[label].value for label in ("Classes", "Error of guessing")} == {"not recorded"}
