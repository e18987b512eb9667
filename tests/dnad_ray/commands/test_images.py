"""A run and its images: shown before any work, kept in the folder, and never exchanged unsaid."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from dnad_ray.commands.folder import check_out, stored_run
from dnad_ray.commands.training import Training, run_config_of
from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder.images import read_images
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run

QUICK = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu", "--no-ray", "--networks", 1)


@pytest.fixture
def images(pictures, tmp_path):
    """Images that a test may change."""
    return shutil.copytree(pictures, tmp_path / "images")


@pytest.fixture
def mine(tiny, images, tmp_path):
    """A configuration whose folder is named as people do."""
    config = config_to_dict(tiny({"data.name": "imagefolder", "train.batch_size": 24}))
    config["data"]["root"] = "images"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "mine.yaml"


@pytest.fixture
def paused(command, mine, tmp_path):
    """A run that was paused before its first step."""
    code, out, err = command("search", mine, "--out", tmp_path / "demo", "--time-budget", "0.001")
    assert code == 0, err
    # Both parts are shown before any work.
    assert "classes, training + validation images: 0 8 + 2, 1 8 + 2, " in out
    assert out.index("classes, training") < out.index("time budget")
    return tmp_path / "demo"


def test_record_of_the_images_is_in_the_run_folder(paused, images):
    record = read_run(paused).images
    assert record.classes == tuple("0123456789")
    assert (record.num_train, record.num_validation, record.num_test, record.image_size) == (80, 20, 0, 8)
    assert read_run(paused).config["data"]["root"] == str(images)


def test_resume_on_changed_images_is_refused(command, mine, paused, images, refused):
    again = ("search", mine, "--out", paused, "--resume", "--time-budget", "0.001")
    assert command(*again)[0] == 0
    kept = {path: path.read_bytes() for path in paused.rglob("*") if path.is_file()}
    shutil.copy(images / "0" / sorted(path.name for path in (images / "0").iterdir())[0], images / "3" / "x.png")
    refused(command(*again), "images: got changed ones (train images of class '3': 11, were 10)", "another --out")
    assert {path: path.read_bytes() for path in paused.rglob("*") if path.is_file()} == kept
    (images / "3" / "x.png").unlink()
    assert command(*again)[0] == 0


def test_resume_of_a_damaged_record_is_refused(command, mine, paused, refused):
    (paused / "images.json").write_text("{}")
    refused(command("search", mine, "--out", paused, "--resume"), "record of the images", "images.json")


def test_run_of_a_version_without_a_record_goes_on(command, mine, paused, tiny):
    (paused / "images.json").unlink()
    config = yaml.safe_load((paused / "config.yaml").read_text())
    del config["data"]["broken"]  # nor had it this key
    config["data"]["root"] = "images"  # and it kept paths as they were given
    (paused / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = command("search", mine, "--out", paused, "--resume", "--time-budget", "0.001")
    assert (code, err) == (0, "")


def test_retrain_on_changed_images_is_refused_unless_others_are_named(command, mine, images, tmp_path, refused):
    run = tmp_path / "demo"
    assert command("search", mine, "--out", run, "--quiet")[0] == 0
    code, out, err = command("retrain", run, *QUICK)
    assert code == 0, err
    assert "classes, training + validation images: 0 8 + 2, " in out
    assert f"images of {images}" in out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (images / "7").iterdir():
        shutil.copy(images / "1" / sorted(p.name for p in (images / "1").iterdir())[0], path)
    for name in ("retrain", "baselines"):
        result = command(name, run, *QUICK, *(["--kinds", "random"] if name == "baselines" else []))
        refused(result, "train images of class '7': other content", "--data")
    code, out, err = command("retrain", run, *QUICK, "--data", images)
    assert (code, "(0 done already)" in out) == (0, True), err
    first, second = read_retrained(run)[0]
    assert first["images"] != second["images"]
    assert first["protocol"] != second["protocol"]
    own = next(record for record in (first, second) if record["images"] == read_images(run).digest)
    # Whatever the other one reached, the run's own network is exported.
    for record in (first, second):
        file = run / "retrained" / record["job"] / "result.json"
        file.write_text(json.dumps(record | {"accuracy": 0.1 if record is own else 0.9}))
    assert command("export", run, "--format", "safetensors", "--out", tmp_path / "net.safetensors")[0] == 0
    assert json.loads((tmp_path / "net.json").read_text())["facts"]["job"] == own["job"]
    shutil.rmtree(run / "retrained" / own["job"])
    assert command("export", run, "--format", "safetensors", "--out", tmp_path / "net.safetensors")[0] == 0


def test_export_of_several_sets_of_images_asks_for_one(command, run, refused):
    assert command("retrain", run, *QUICK)[0] == 0
    (record,) = read_retrained(run)[0]
    assert record["images"]
    (run / "images.json").unlink(missing_ok=True)
    other = run / "retrained" / "other"
    shutil.copytree(run / "retrained" / record["job"], other)
    for folder, name in ((run / "retrained" / record["job"], "one"), (other, "two")):
        changed = record | {"dataset": name, "job": folder.name}
        (folder / "result.json").write_text(json.dumps(changed))
    refused(command("export", run, "--format", "safetensors"), "SOURCE", "--job with one of ", "other")


def test_downloads_of_the_author_of_a_run_need_the_users_word(tiny, tmp_path):
    config = tiny({"data.name": "cifar10", "data.root": str(tmp_path / "anywhere"), "data.download": True})
    contents = read_run(create_run(tmp_path / "foreign", config_to_dict(config), "0.1"))
    assert run_config_of(contents, Training()).data.download is False
    assert run_config_of(contents, Training(set=["data.download=true"])).data.download is True


def test_images_that_only_the_author_of_a_run_names_need_the_users_word(command, run, pictures, refused, monkeypatch):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"name": "imagefolder", "root": str(pictures)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "images.json").unlink(missing_ok=True)
    looked = []
    monkeypatch.setattr("dnad_ray.commands.training.load_retrain_images", lambda config, _: looked.append(config.root))
    for name in ("retrain", "baselines"):
        refused(
            command(name, run, *QUICK), f"images: got {pictures}, named by the configuration of ", f"--data {pictures}"
        )
    assert looked == []
    for given in (("--data", pictures), ("--set", f"data.root={pictures}")):
        with pytest.raises(AttributeError):  # the images of this test are None
            command("retrain", run, *QUICK, *given)
    assert looked == [str(pictures)] * 2


def test_run_of_a_relative_root_is_continued_where_it_began(tiny, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    old = config_to_dict(tiny({"data.name": "imagefolder", "data.root": "photos"}))
    folder = create_run(tmp_path / "demo", old, "0.1")
    asked = tiny({"data.name": "imagefolder", "data.root": str(tmp_path / "photos")})
    assert check_out(asked, [], folder, stored_run(folder)) == folder
