"""`dnad-ray measure` and `dnad-ray export` on a real run."""

from __future__ import annotations

import json
import shutil

import pytest

import dnad_ray as dr
from dnad_ray.run_folder.jobs import read_measurements, read_retrained
from dnad_ray.storage.files import write_json

FEW_STEPS = ("--set", "batch_size=256", "--set", "init_channels=4")
QUICK = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu", *FEW_STEPS)


def test_measure_of_a_run_keeps_latency_and_memory_of_its_front(command, run):
    result = command("measure", run, "--repeats", 3, "--device", "cpu")
    assert result[0] == 0, result
    records, problems = read_measurements(run)
    assert problems == []
    assert {record["digest"] for record in records} == {
        row["digest"] for row in json.loads((run / "front.json").read_text())
    }


def test_measure_in_onnxruntime_is_beside_that_in_torch(command, run, refused):
    pytest.importorskip("onnxruntime")
    for runtime in ("torch", "onnxruntime"):
        result = command("measure", run, "--repeats", 3, "--device", "cpu", "--runtime", runtime)
        assert result[0] == 0, result
    records, _ = read_measurements(run)
    names = {record["device_name"] for record in records}
    (torch_name,) = (name for name in names if not name.endswith(", onnxruntime"))
    assert names == {torch_name, f"{torch_name}, onnxruntime"}
    assert len(records) == 2 * len({record["digest"] for record in records})
    refused(command("measure", run, "--runtime", "tvm"), "--runtime: got 'tvm'; allowed: onnxruntime, torch")


def test_measure_of_a_run_believes_the_channels_that_its_records_say(command, run):
    for file in run.glob("trials/*/snapshots/*.json"):
        row = json.loads(file.read_text())
        assert row["in_channels"] == 1
        # Counted by another counter, or another version of it: no count of ours gives that number.
        write_json(file, row | {"macs": row["macs"] + 1, "counter": "another"})
    (run / "snapshots.parquet").unlink()
    result = command("measure", run, "--repeats", 3, "--device", "cpu")
    assert result[0] == 0, result
    assert len(read_measurements(run)[0]) == result[1].count(" ms (p90 ") > 0


def test_measure_of_a_folder_that_retraining_alone_filled(command, run, tmp_path, refused, one_genotype):
    out = tmp_path / "new"
    made = command("retrain", one_genotype(run), *QUICK, "--no-ray", "--data", "digits", "--out", out)
    assert made[0] == 0, made
    result = command("measure", out, "--repeats", 3, "--device", "cpu")
    assert result[0] == 0, result
    (record,) = read_measurements(out)[0]
    assert record["digest"] == read_retrained(out)[0][0]["digest"]
    shutil.rmtree(out / "retrained")
    refused(command("measure", out), "RUN", "a run with snapshots or with retrained networks")


def test_export_of_a_run_takes_its_most_accurate_network_or_the_one_asked_for(command, run, tmp_path, refused):
    refused(command("export", run, "--format", "safetensors"), "`dnad-ray retrain` comes first")
    assert command("retrain", run, *QUICK, "--networks", 2, "--no-ray")[0] == 0
    records, _ = read_retrained(run)
    best, worst = sorted(records, key=lambda record: -record["accuracy"])
    for record, options in ((best, []), (worst, ["--digest", worst["digest"][:6]]), (worst, ["--job", worst["job"]])):
        out = tmp_path / "net.safetensors"
        result = command("export", run, "--format", "safetensors", "--out", out, *options)
        assert result[0] == 0, result
        assert json.loads((tmp_path / "net.json").read_text())["facts"]["job"] == record["job"]
    refused(command("export", run, "--digest", "zzz"), "--digest", "zzz", best["digest"])


def test_measure_of_a_folder_that_a_published_network_alone_filled(command, pictures, tmp_path):
    out = tmp_path / "new"
    small = ("--cells", 3, "--no-ray")
    made = command("retrain", "darts-v2", *QUICK, *small, "--data", pictures, "--out", out)
    assert made[0] == 0, made
    result = command("measure", out, "--repeats", 3, "--device", "cpu")
    assert result[0] == 0, result
    (record,) = read_measurements(out)[0]
    assert (record["digest"], record["init_channels"]) == (read_retrained(out)[0][0]["digest"], 4)


def test_export_without_a_name_has_one_for_each_job(command, run, tmp_path, monkeypatch):
    assert command("retrain", run, *QUICK, "--networks", 1, "--seeds", 2, "--no-ray")[0] == 0
    monkeypatch.chdir(tmp_path)
    records, _ = read_retrained(run)
    assert len({record["digest"] for record in records}) == 1
    for record in records:
        result = command("export", run, "--format", "safetensors", "--job", record["job"])
        assert result[0] == 0, result
        assert f"network_{record['digest']}_{record['job']}.safetensors" in result[1]
    assert len(list(tmp_path.glob("network_*.safetensors"))) == 2
    assert "network_DIGEST_JOB" in command("export", "--help")[1]


def test_export_of_8_bits_is_calibrated_by_the_images_of_the_run(command, run, tmp_path, refused, pictures):
    pytest.importorskip("onnxruntime")
    assert command("retrain", run, *QUICK, "--networks", 1, "--no-ray")[0] == 0
    out = tmp_path / "net.int8.onnx"
    result = command("export", run, "--out", out)
    assert result[0] == 0, result
    assert "same class as the float network for " in result[1]
    assert "onnx-int8: net.int8.onnx" in (tmp_path / "net.int8.onnx.md").read_text()
    (record,) = read_retrained(run)[0]
    # A job's folder says in which run its images are.
    again = command("export", run / "retrained" / record["job"], "--format", "onnx-int8", "--out", out)
    assert again[:2] == (0, result[1])
    alone = shutil.copytree(run / "retrained" / record["job"], tmp_path / "alone")
    refused(command("export", alone, "--format", "onnx-int8"), "--data: got None", "it lies in no run folder")
    assert command("export", alone, "--format", "onnx-int8", "--data", "digits", "--out", out)[:2] == (0, result[1])
    refused(command("export", run, "--format", "onnx", "--data", "digits"), "--data", "only onnx-int8 needs images")
    refused(command("export", run, "--format", "onnx-int8", "--data", tmp_path / "no"), "--data")
    file = run / "retrained" / record["job"] / "network.json"
    facts = json.loads(file.read_text())
    del facts["checksum"]
    write_json(file, facts | {"facts": facts["facts"] | {"images": "others"}})
    refused(command("export", run, "--format", "onnx-int8"), "--data", "those of the run folder are others now")


def test_benchmark_of_a_run_takes_its_front_or_the_jobs_asked_for(command, run, refused):
    pytest.importorskip("onnxruntime")
    refused(command("benchmark", run), "`dnad-ray retrain` comes first")
    assert command("retrain", run, *QUICK, "--networks", 1, "--seeds", 2, "--no-ray")[0] == 0
    best, worst = sorted(read_retrained(run)[0], key=lambda record: (-record["accuracy"], record["job"]))
    assert best["accuracy"] > worst["accuracy"]
    quick = ("--repeats", 2, "--json")
    result = command("benchmark", run, *quick)
    assert result[0] == 0, result
    found = json.loads(result[1])
    assert (found["threads"], {row["job"] for row in found["rows"]}) == (1, {best["job"]})
    # The images are those that the job was measured on.
    assert found["rows"][0]["accuracy"] == pytest.approx(best["accuracy"])
    assert found["rows"][0]["num_images"] == best["num_images"]
    both = command("benchmark", run, *quick, "--images", 9, "--job", worst["job"], "--job", best["job"])
    assert [row["job"] for row in json.loads(both[1])["rows"]] == [worst["job"]] * 5 + [best["job"]] * 5
    table = command("benchmark", run / "retrained" / worst["job"], "--repeats", 2, "--images", 9)
    assert table[0] == 0, table
    assert "1 thread, one image at a time" in table[1]
    assert worst["job"] in table[1]
    frame = dr.open_run(run).benchmark(worst["job"], images=9, repeats=2)
    of_worst = json.loads(both[1])["rows"][:5]
    assert [*zip(frame["job"], frame["format"], strict=True)] == [(row["job"], row["format"]) for row in of_worst]
    with pytest.raises(dr.UserError, match=r"^images: got 0; allowed: 1 to"):
        dr.open_run(run).benchmark(images=0)
    refused(command("benchmark", run, "--images", 0), "--images: got 0; allowed: 1 to")
    refused(command("benchmark", run, "--job", "zzz"), "--job", "zzz")
