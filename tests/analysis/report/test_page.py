from __future__ import annotations

import base64
import errno
import json
import os
import re
import shlex
import shutil
import stat
import zlib
from html.parser import HTMLParser

import pytest

import analysis.report.page
from analysis.frame import RunWarning, load_runs
from analysis.pareto import front_of
from analysis.report.affordable import EPOCHS, RECIPE
from analysis.report.page import write_report
from dnad_ray.config.retrain import RETRAIN_RECIPES
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import ResourceError, RunFolderError, UserError
from dnad_ray.run_folder.records import Measurement
from dnad_ray.run_folder.writing import (
    create_run,
    write_config,
    write_measurement,
    write_result,
    write_snapshot,
    write_status,
)
from dnad_ray.storage.files import write_json
from search_spaces.genotype import Genotype

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TRIALS = ({"seed": 0, "shrink.rate": 0.1}, {"seed": 1, "shrink.rate": 0.1}, {"seed": 0, "shrink.rate": 0.05})


class Page(HTMLParser):
    """The parts of a page that tests ask for, as a browser would split it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    @property
    def data(self):
        return unpacked(self.scripts[0])


def unpacked(text):
    return json.loads(zlib.decompress(base64.b64decode(text)))


def column(data, name):
    """The words of a column, row by row."""
    found = data["columns"][name]
    return [found["words"][code] for code in found["codes"]] if "codes" in found else found["words"]


def read(file):
    return Page(file.read_text(encoding="utf-8"))


def test_write_report_is_one_file_that_loads_nothing(make_run, tmp_path):
    out = tmp_path / "report.html"
    assert write_report(make_run(trials=TRIALS), out) == out
    page = read(out)
    assert not {name for name, _ in page.attributes} & {"src", "srcset"}
    assert "link" not in page.tags or all(
        value == "data:," or value.startswith("#")  # a place in the page
        for name, value in page.attributes
        if name == "href" and value
    )
    assert "default-src 'none'" in out.read_text(encoding="utf-8")
    assert out.stat().st_size < 7_000_000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_write_report_embeds_front_networks_and_numbers_of_all(make_run, tmp_path):
    folder = make_run(trials=TRIALS, epochs=6)
    frame = load_runs(folder)
    front = front_of(frame)
    page = read(write_report(folder, tmp_path / "report.html"))
    data = page.data
    assert set(data["networks"]) == set(front["digest"])
    assert len(data["networks"]) < frame["digest"].nunique()
    for digest, network in data["networks"].items():
        assert Genotype.from_dict(unpacked(network)["genotype"]).digest == digest
        assert unpacked(network)["drawing"].count("<svg") > 3
    assert data["labels"][0] == "Proxy error (share of validation images)"
    assert column(data, "digest") == frame["digest"].tolist()
    assert column(data, "error") == [f"{error:.2%}" for error in frame["error"]]
    assert data["numbers"]["macs"] == frame["macs"].tolist()
    assert data["first"] == front["error"].idxmin()
    assert data["front"] == front.index.tolist()


def test_write_report_has_every_chart_that_its_data_can_fill(make_run, tmp_path, retrained):
    grid = [
        {"seed": seed, "distill.kind": "logits", "distill.temperature": t, "distill.weight": w, "shrink.rate": 0.1}
        for t in (1.0, 4.0)
        for w in (0.5, 1.0)
        for seed in (0, 1)
    ]
    folder = make_run(trials=grid, epochs=3)
    # Parameters follow MACs in these networks: a third objective would show the same front once more.
    always = {"front", "attainment", "hypervolume", "compute", "operations", "weights", "shrinking", "paths"}
    page = read(write_report(folder, tmp_path / "report.html"))
    assert set(page.data["figures"]) == always | {"response"}  # eight trials say nothing sure about importance
    assert {value for name, value in page.attributes if name == "id" and value.startswith("chart-")} == {
        f"chart-{name}" for name in page.data["figures"]
    }
    frame = load_runs(folder).drop_duplicates("digest")
    for row in range(3):
        write_result(folder, retrained(frame.iloc[row], accuracy=0.9 + row / 100))
    page = read(write_report(folder, tmp_path / "report.html"))
    assert set(page.data["figures"]) == always | {"response", "retrained", "ranking"}
    assert "Against the baselines" not in page.text
    write_result(folder, retrained(frame.iloc[0], accuracy=0.5, origin="random", digest="f" * 16, job="chance"))
    text = "".join(read(write_report(folder, tmp_path / "report.html")).text)
    assert "Against the baselines" in text
    assert "random (1.00x MACs, 50.00 %): wins by 40.00 +- " in text
    assert "Network by network (3)" in text
    assert "against random, the front wins at 3 of 3 sizes" in text
    assert "no chart mixes the two" in " ".join("".join(page.text).split())


def test_write_report_gives_the_command_that_retrains(make_run, tmp_path):
    folder = make_run("it's a run/demo", epochs=2)
    data = read(write_report(folder, tmp_path / "report.html")).data
    assert shlex.split(data["commands"]["demo"]) == ["dnad-ray", "retrain", str(folder), "--recipe", "quick"]
    # Epochs of the made-up search take 7 s, then about 4; the held-out fifth is trained on too: 30 x 4 / 0.8.
    assert set(column(data, "retrain")) <= {f"about {minutes} min" for minutes in (2, 3, 4)}


def test_write_report_draws_a_third_objective_where_it_adds_a_network(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    for step, (macs, params, accuracy) in enumerate([(10, 10, 0.5), (20, 20, 0.9), (30, 5, 0.6)], 1):
        network = dense(2, step)
        write_snapshot(folder, snapshot(network, step=step, macs=macs, params=params, proxy_accuracy=accuracy), network)
    assert {"parallel", "space"} <= set(read(write_report(folder, tmp_path / "report.html")).data["figures"])


def test_write_report_of_one_trial_compares_no_settings(make_run, tmp_path):
    page = read(write_report(make_run(epochs=4), tmp_path / "report.html"))
    assert set(page.data["figures"]) == {"front", "compute", "operations", "weights", "shrinking"}


def test_write_report_shows_importance_of_ten_trials(make_run, tmp_path):
    grid = [{"seed": seed, "shrink.rate": rate} for rate in (0.05, 0.1) for seed in range(5)]
    assert "importance" in read(write_report(make_run(trials=grid, epochs=2), tmp_path / "a.html")).data["figures"]
    fewer = make_run("fewer", trials=grid[:9], epochs=2)
    assert "importance" not in read(write_report(fewer, tmp_path / "b.html")).data["figures"]


def test_write_report_puts_what_was_trained_from_scratch_first(make_run, tmp_path, retrained):
    folder = make_run(trials=TRIALS, epochs=4)
    frame = load_runs(folder).drop_duplicates("digest")
    for seed, accuracy in enumerate((0.9, 0.92)):
        write_result(folder, retrained(frame.iloc[0], accuracy=accuracy, seed=seed))
    page = read(write_report(folder, tmp_path / "report.html"))
    sections = [value for name, value in page.attributes if name == "id" and value in ("summary", "trained", "front")]
    assert sections == ["summary", "trained", "front"]
    links = [value for name, value in page.attributes if name == "href" and value and value.startswith("#")]
    ids = {value for name, value in page.attributes if name == "id"}
    assert {link[1:] for link in links} <= ids
    assert links[:3] == ["#summary", "#trained", "#front"]
    text = " ".join("".join(page.text).split())
    # The mean of 10 and 8 %; they are 1.41 points apart from it as sample deviations go.
    assert "1 network trained from scratch; the best has an error of 9.00% on test images, the mean of 2 seeds " in text
    assert "(standard deviation 1.41 points)" in text
    assert "6.46% to 12.41%" in text  # what counting on 359 images leaves open
    assert "359 test images" in text
    # The pick is the trained network, and how to export it; none is made by proxy errors beside it.
    assert "the lowest error after training, and the fewest MACs: " + frame["digest"].iloc[0] in text
    assert f"dnad-ray export {folder} --job " in text
    assert "the lowest proxy error" not in text


def test_write_report_has_a_column_of_latency_for_each_machine(make_run, tmp_path, retrained):
    folder = make_run(epochs=3)
    frame = load_runs(folder).drop_duplicates("digest")
    first, second = (retrained(frame.iloc[row]) for row in (0, 1))
    for result in (first, second):
        write_result(folder, result)
    for name, times in (("a", 1.25), ("b, onnxruntime", 0.5)):
        about = {key: getattr(first, key) for key in ("run", "digest", "model", "init_channels", "width", "image_size")}
        numbers = dict.fromkeys(("latency_p50", "latency_p90", "latency_p99"), times) | {"peak_memory": 1}
        shape = {"batch_size": 1, "device": "cpu", "device_name": name, "threads": 2, "repeats": 3}
        write_measurement(folder, Measurement(**about, **shape, **numbers))
    page = read(write_report(folder, tmp_path / "report.html"))
    cells = [text.strip() for text in page.text]
    for name in ("a", "b, onnxruntime"):
        assert f"Latency, ms (batch 1, {name}, 2 threads)" in cells
    at = cells.index(first.digest)
    assert [cell for cell in cells[at : at + 40] if cell in ("1.250", "0.500")] == ["1.250", "0.500"]
    assert cells.count("1.250") == 1  # the other network was not timed


def test_write_report_compares_no_networks_of_two_sets_of_images(make_run, tmp_path, retrained):
    folder = make_run(trials=TRIALS, epochs=4)
    frame = load_runs(folder).drop_duplicates("digest")
    for row, accuracy in enumerate((0.9, 0.92)):
        write_result(folder, retrained(frame.iloc[row], accuracy=accuracy, images="a" * 16))
    easy = {"dataset": "imagefolder", "images": "b" * 16}
    write_result(folder, retrained(frame.iloc[0], accuracy=0.99, job="easy", **easy))
    write_result(folder, retrained(frame.iloc[2], accuracy=0.1, job="chance", origin="random", digest="f" * 16, **easy))
    page = read(write_report(folder, tmp_path / "report.html"))
    text = " ".join("".join(page.text).split())
    assert (
        "Networks were trained on 2 sets of images (digits, imagefolder): errors of two sets cannot be compared."
        in text
    )
    # 1 and 8 %: the lower one is of the other images; as many networks on both, the first set counts.
    assert "4 networks trained from scratch; the best has an error of 8.00% on test images" in text
    assert "on one of the sets of images, digits" in text
    # The random network is compared with the one network of its own images.
    assert text.count(" against random ") == 1
    assert "20 epochs on imagefolder bbbbbb (protocol " in text
    # Each is compared with the smaller one of its own images: 8 with 10 %, and 1 with 90 %.
    cells = [value for value in map(str.strip, page.text) if value in ("better", "worse", "within noise")]
    assert sorted(cells) == ["better", "within noise"]


def test_write_report_explains_its_words(make_run, tmp_path):
    grid = [
        {"seed": 0, "distill.kind": kind, "distill.temperature": None if kind == "none" else 4.0}
        for kind in ("none", "logits")
    ]
    for name, trials, has_kd in (("plain", TRIALS, False), ("kd", grid, True)):
        text = "".join(read(write_report(make_run(name, trials=trials, epochs=4), tmp_path / "report.html")).text)
        for word in ("Supernet", "Snapshot", "Proxy error", "Hypervolume", "Shrink rate", "Kind pruned", "Kind final"):
            assert word in text
        assert ("KD temperature (T)" in text) == has_kd
        assert "Kind ladder" not in text


def test_the_recipe_that_a_report_names_has_the_epochs_that_it_says():
    assert RETRAIN_RECIPES[RECIPE]().epochs == EPOCHS


def test_write_report_draws_what_there_is_room_for_and_says_so(make_run, tmp_path, monkeypatch):
    folder = make_run(trials=TRIALS, epochs=6)
    front = front_of(load_runs(folder))
    assert len(front) > 3
    monkeypatch.setattr(analysis.report.page, "_NETWORK_BYTES", 4_000)
    page = read(write_report(folder, tmp_path / "report.html"))
    embedded = page.data["networks"]
    assert front.at[front["error"].idxmin(), "digest"] in embedded  # picks come first
    assert 0 < len(embedded) < len(front)
    missing = len(front) - len(embedded)
    assert f"{missing} networks of the front are not embedded" in "".join(page.text)


def test_spread_takes_ends_and_middles_first():
    names = list(analysis.report.page._spread(list("abcdefghi")))
    assert names[0] == "a"
    assert list(dict.fromkeys(names))[:3] == ["a", "i", "e"]
    assert set(names) == set("abcdefghi")
    assert list(dict.fromkeys(analysis.report.page._spread(["a"]))) == ["a"]
    assert list(analysis.report.page._spread([])) == []


def test_write_report_says_by_whom_costs_are_and_whether_a_trace_confirmed_them(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    for step, traced in ((10, False), (20, True)):
        write_snapshot(folder, snapshot(dense(), step=step, costs_traced=traced), dense())
    data = read(write_report(folder, tmp_path / "report.html")).data
    counter = "fvcore-0.1.5 total, eval"
    assert "Costs by" in data["labels"]
    assert column(data, "counter") == [counter, f"{counter}, confirmed by a trace of the network"]


def test_write_report_shows_the_score_where_one_was_computed(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    write_snapshot(folder, snapshot(dense(), step=10), dense())
    assert "Score without training" not in read(write_report(folder, tmp_path / "report.html")).data["labels"]
    write_snapshot(folder, snapshot(dense(), step=20, score=29.574), dense())
    data = read(write_report(folder, tmp_path / "report.html")).data
    assert "Score without training" in data["labels"]
    assert column(data, "score") == ["-", "29.57"]


def test_write_report_lists_the_front_and_says_who_made_it_and_that_errors_are_proxy_errors(make_run, tmp_path):
    folder = make_run(trials=TRIALS, epochs=5)
    front = front_of(load_runs(folder))
    file = write_report(folder, tmp_path / "report.html")
    rows = re.findall(r'<tr data-row="(\d+)"', file.read_text(encoding="utf-8"))
    assert [int(row) for row in rows] == front.index.tolist()
    page = read(file)
    assert {"Who made the front", "Shrink rate 0.05"} <= set(page.text)
    text = " ".join(" ".join(page.text).split())
    for words in ("Proxy errors", "shared weights", "test set was not used."):
        assert words in text


def test_write_report_text_from_files_stays_text(make_run, tmp_path):
    folder = make_run(trials=TRIALS, epochs=2)
    write_status(folder, "t1", "failed", reason=HOSTILE)
    config = config_to_dict(RunConfig())
    config["data"]["root"] = HOSTILE
    write_config(folder, config)
    for file in folder.glob("trials/t2/snapshots/*.json"):
        # A trial has no such name: the store would leave the snapshot out.
        write_json(file, json.loads(file.read_text()) | {"kd_kind": HOSTILE, "counter": HOSTILE, "dataset": HOSTILE})
    marker = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", marker | {"name": HOSTILE})
    page = read(write_report(folder, tmp_path / "report.html"))
    assert page.tags.count("script") == 4
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = "".join(page.text)
    assert f"failed: {HOSTILE}" in text
    assert f"root: {HOSTILE}" in text
    assert "<" not in page.scripts[0]
    assert HOSTILE in column(page.data, "counter")
    plotted = json.dumps(page.data["figures"])
    assert "<script" not in plotted
    assert "<img" not in plotted


def test_write_report_of_a_run_that_is_still_going_on(make_run, tmp_path):
    folder = make_run(
        trials=TRIALS, epochs=4, states={1: {"state": "running"}, 2: {"state": "failed", "reason": "NaN"}}
    )
    text = "".join(read(write_report(folder, tmp_path / "report.html")).text)
    assert "Trials that did not finish" in text
    assert "demo / t1: still running or interrupted" in text
    assert "demo / t2: failed: NaN" in text


def test_write_report_without_snapshots(tmp_path):
    folder = create_run(tmp_path / "new", config_to_dict(RunConfig()), "0.0.0")
    page = read(write_report(folder, folder / "report.html"))
    assert "1 run with 0 trials (searches) left no snapshot yet." in page.text
    assert page.data["figures"] == page.data["networks"] == {}


def test_write_report_lost_genotype_is_said_and_the_rest_stands(make_run, tmp_path):
    folder = make_run(epochs=3)
    digest = front_of(load_runs(folder))["digest"].iloc[0]
    (folder / "genotypes" / f"{digest}.json").unlink()
    with pytest.warns(RunWarning, match=f"architecture {digest} cannot be drawn"):
        page = read(write_report(folder, tmp_path / "report.html"))
    assert digest not in page.data["networks"]
    assert "Read with care" in page.text


def test_write_report_of_several_runs_shows_all_configurations(make_run, tmp_path):
    folders = [make_run("a/demo", epochs=2), make_run("b/demo", epochs=2)]
    page = read(write_report(folders, tmp_path / "report.html"))
    assert page.tags.count("details") == 3  # one a run, and more about the network that is shown
    assert {"demo (a/demo)", "demo (b/demo)"} <= set(page.text)


def test_write_report_same_runs_give_the_same_file(make_run, tmp_path):
    folder = make_run(trials=TRIALS)
    first, second = (write_report(folder, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_write_report_replaces_as_a_whole_or_not_at_all(make_run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(RunFolderError):
        write_report(tmp_path / "missing", out)
    assert out.read_text() == "old"
    folder = make_run()
    shutil.copytree(folder, tmp_path / "copy")
    write_report([folder, tmp_path / "copy"], out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_write_report_onto_a_full_disk_says_so_and_keeps_the_old_one(make_run, tmp_path, monkeypatch):
    folder, out = make_run(), tmp_path / "reports" / "report.html"
    out.parent.mkdir()
    out.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"space on the disk of: got .*reports'; allowed: enough room") as caught:
        write_report(folder, out)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    "out", [".", "missing/report.html", "folder.html", "pipe.html", "link.html", "report", "old.txt"]
)
def test_write_report_refuses_what_is_no_file(make_run, tmp_path, monkeypatch, out):
    folder = make_run()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    os.mkfifo("pipe.html")
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "link.html").symlink_to("old.txt")
    with pytest.raises(UserError, match="an HTML file in an existing folder"):
        write_report(folder, out)
    assert stat.S_ISFIFO((tmp_path / "pipe.html").stat().st_mode)
    assert (tmp_path / "old.txt").read_text() == "old"


def test_write_report_never_replaces_a_file_of_the_run(make_run):
    folder = make_run()
    marker = (folder / "run.json").read_bytes()
    with pytest.raises(UserError, match="an HTML file"):
        write_report(folder, folder / "run.json")
    assert (folder / "run.json").read_bytes() == marker


def test_write_report_follows_a_link(make_run, tmp_path):
    link, target = tmp_path / "link.html", tmp_path / "target.html"
    target.write_text("old")
    link.symlink_to(target)
    assert write_report(make_run(), link) == link
    assert link.is_symlink()
    assert target.stat().st_size > 10_000


def test_write_report_replaces_a_link_in_a_run_folder(make_run, tmp_path):
    folder, outside = make_run(), tmp_path / "outside.html"
    outside.write_text("old")
    (folder / "report.html").symlink_to(outside)
    write_report(folder, folder / "report.html")
    assert not (folder / "report.html").is_symlink()
    assert outside.read_text() == "old"
