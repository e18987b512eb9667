"""Genotypes from files and names, and the commands that count, list and draw them."""

from __future__ import annotations

import json

import pytest

from dnad_ray.errors import RunFolderError, UserError
from dnad_ray.run_folder.genotypes import found_in_file, read_any_genotype
from search_spaces.published import published, published_named

STRING = "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|"


@pytest.fixture
def darts_v2(tmp_path):
    path = tmp_path / "darts.json"
    path.write_text(json.dumps(published_named("darts-v2").form))
    return path


def test_file_and_name_give_the_same_network(darts_v2):
    assert read_any_genotype(darts_v2, 8) == read_any_genotype("darts-v2", 8)
    assert len(read_any_genotype(str(darts_v2)).cells) == 20


def test_file_goes_before_a_name(darts_v2, tmp_path):
    (tmp_path / "p-darts").write_text(darts_v2.read_text())
    assert read_any_genotype("p-darts") == read_any_genotype("darts-v2")


@pytest.mark.parametrize("name", ["darts-v3", "no/such.json", "."])
def test_what_is_neither_a_file_nor_a_name(name):
    with pytest.raises(RunFolderError, match="genotype: got"):
        read_any_genotype(name)


def test_large_file_is_not_read(tmp_path):
    path = tmp_path / "large.json"
    path.write_text("|" + "a" * 2**21)
    with pytest.raises(UserError, match="at most 1,048,576 bytes"):
        read_any_genotype(path)


def test_count_as_json(command, darts_v2):
    code, out, err = command("count", darts_v2, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert (facts["params"], facts["macs_conv_linear"], facts["fvcore_total"]) == (3349342, 528359040, 539123328)
    assert facts["params_as_written"] == facts["params"]
    assert (facts["num_cells"], facts["init_channels"], facts["image_size"], facts["num_classes"]) == (20, 36, 32, 10)


def test_count_in_another_setting(command, darts_v2):
    code, out, _ = command("count", darts_v2, "--cells", 5, "--init-channels", 4, "--classes", 7, "--image-size", 8)
    assert code == 0
    assert "5 cells, 4 channels, 8x8, 7 classes" in out
    assert "multiply-adds of convolutions and linear layers" in out
    code, out, _ = command("count", "pc-darts-imagenet", "--setting", "imagenet", "--json", "--conventions")
    facts = json.loads(out)
    assert (code, facts["num_cells"], facts["params"]) == (0, 14, 5342464)
    assert round(facts["conventions"]["norm2_relu1"] / 1e6) == 597


def test_count_of_gray_images_has_a_smaller_stem(command):
    options = ("darts-v2", "--cells", 5, "--init-channels", 4, "--image-size", 8, "--json")
    (colour, gray) = (json.loads(command("count", *options, *more)[1]) for more in ((), ("--in-channels", 1)))
    stem = 2 * (3 * 4) * 9  # two channels less, 3C channels, 3x3
    assert (colour["in_channels"], gray["in_channels"]) == (3, 1)
    assert colour["params"] - gray["params"] == stem
    assert colour["macs_conv_linear"] - gray["macs_conv_linear"] == stem * 8 * 8
    assert "8x8, gray, 10 classes" in command("count", *options[:-1], "--in-channels", 1)[1]


def test_found_in_file_takes_the_parts_of_a_genotype_for_no_front(tmp_path):
    form = published_named("darts-v2").form
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([form[name] for name in ("normal", "normal_concat", "reduce", "reduce_concat")]))
    (found,) = found_in_file(path, 5)
    assert found.genotype == read_any_genotype("darts-v2", 5)
    for content in ("[]", "[[1]]", "[1, 2]"):
        path.write_text(content)
        with pytest.raises(UserError):
            found_in_file(path)


def test_count_of_a_string_is_that_of_the_benchmark(command, tmp_path):
    path = tmp_path / "arch.txt"
    path.write_text(STRING)
    code, out, _ = command("count", path, "--json")
    facts = json.loads(out)
    convs = 5 * sum(9 * channels**2 + 2 * channels for channels in (16, 32, 64))
    assert (code, facts["params"]) == (0, 73_306 + convs)
    assert facts["flops_nas_bench_201"] == facts["macs_conv_linear"] + 10
    path.write_text("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    code, out, _ = command("count", path)
    assert code == 0
    assert "73,306" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["darts-v2", "--cells", "2"], "number of cells: got 2; allowed: 3"),
        (["darts-v9"], "a name that `dnad-ray published` lists"),
        (["nas-bench-201-0", "--cells", "16"], "a multiple of the 3 stages"),
        (["nas-bench-201-0", "--setting", "imagenet"], "--setting: got 'imagenet'; allowed: cifar10"),
        (["darts-v2", "--setting", "imagenet", "--image-size", "16"], "at least 32 pixels"),
        (["darts-v2", "--setting", "svhn"], "'svhn' is not one of"),
    ],
)
def test_count_refuses_in_one_line(command, arguments, words):
    code, out, err = command("count", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_count_of_a_genotype_of_ours_with_another_number_of_cells(command, tmp_path):
    path = tmp_path / "ours.json"
    path.write_text(read_any_genotype("darts-v2", 5).to_json())
    code, out, _ = command("count", path, "--init-channels", 4, "--json")
    assert (code, json.loads(out)["num_cells"]) == (0, 5)
    code, _, err = command("count", path, "--cells", 8)
    assert code == 2
    assert "--cells: got 8; allowed: 5" in err


def test_published_lists_all_of_them(command):
    code, out, _ = command("published", "darts-v2", "--json")
    (entry,) = json.loads(out)
    assert (code, entry["counts"]["imagenet"]["params"]) == (0, 4718752)
    assert "quark0" in entry["source"] or "PC-DARTS" in entry["source"]
    code, out, _ = command("published", "darts-v2")
    assert (code, json.loads(out)) == (0, published_named("darts-v2").form)
    code, _, err = command("published", "darts-v9")
    assert code == 2
    assert "published genotype" in err


@pytest.mark.slow
def test_published_as_a_table(command):
    code, out, _ = command("published")
    assert code == 0
    assert all(name in out for name in published())
    assert "3.349342" in out


@pytest.mark.parametrize("name", ["nasnet-a", "nas-bench-201-0"])
def test_drawing_of_a_published_network(command, tmp_path, name):
    out = tmp_path / "drawing.html"
    assert command("draw", name, "--cells", 6, "--out", out)[0] == 0
    page = out.read_text()
    cells = read_any_genotype(name, 6).pruned().cells
    assert page.count("<path d=") - page.count("M1 5H33") == sum(cell.num_operations for cell in cells)
    # Where the output begins with a later node, the band does too: no gap is needed.
    assert page.count('fill="white"/>') == 0


def test_drawing_shows_a_gap_at_a_node_that_is_not_part_of_the_output(command, tmp_path):
    """AmoebaNet's reduction cell hands on nodes 1, 2 and 4 of five: the band begins at node 1 and has a gap at 3."""
    out = tmp_path / "drawing.html"
    assert command("draw", "amoebanet-a", "--cells", 6, "--out", out)[0] == 0
    assert out.read_text().count('fill="white"/>') == 2


def test_drawing_into_no_folder(command, tmp_path):
    code, _, err = command("draw", "darts-v2", "--out", tmp_path / "none" / "a.html")
    assert code == 2
    assert "--out" in err
