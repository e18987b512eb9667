"""Checksums in files: a changed bit is found, whichever it is; files without one are read as they are."""

from __future__ import annotations

import hashlib
import json
import random
import re

import pytest
import yaml

from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import UserError
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.snapshot_table import parse_snapshots
from dnad_ray.run_folder.writing import write_config, write_parquet
from dnad_ray.storage.checksums import ChecksumError, check_yaml, parse_record
from dnad_ray.storage.files import write_json
from dnad_ray.storage.yaml_reader import parse_yaml

ZEROS = b"0" * 64


def by_hand(content):
    """The checksum, as the documentation says to calculate it."""
    (digits,) = re.findall(rb"[0-9a-f]{64}", content)
    return digits.decode(), hashlib.sha256(content.replace(digits, ZEROS)).hexdigest()


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("data", [{"a": 1, "b": [1.5, None]}, {}, [{"epoch": 1}, {"epoch": 2}]])
def test_json_has_its_checksum_as_a_key(data, tmp_path):
    before = json.dumps(data)
    write_json(tmp_path / "file.json", data)
    content = (tmp_path / "file.json").read_bytes()
    written, expected = by_hand(content)
    assert written == expected
    assert (json.loads(content)[-1] if isinstance(data, list) else json.loads(content))["checksum"] == expected
    assert parse_record(content, "x") == parse_record(content.decode(), "x") == data
    assert json.dumps(data) == before
    write_json(tmp_path / "again.json", json.loads(content))  # what was read by other means is written anew
    assert (tmp_path / "again.json").read_bytes() == content


@pytest.mark.parametrize("data", [[], [1, 2], 3, "text", None])
def test_json_without_an_object_at_its_end_has_no_checksum(data, tmp_path):
    write_json(tmp_path / "file.json", data)
    assert json.loads((tmp_path / "file.json").read_text()) == data


def test_json_of_zeros_has_one_checksum(tmp_path):
    write_json(tmp_path / "file.json", {"sha256": "0" * 64})
    content = (tmp_path / "file.json").read_bytes()
    assert parse_record(content, "x") == {"sha256": "0" * 64}
    assert json.loads(content)["checksum"] != "0" * 64


def test_json_every_flipped_bit_is_found(a_snapshot, tmp_path):
    data = a_snapshot.to_dict()
    write_json(tmp_path / "file.json", data)
    content = (tmp_path / "file.json").read_bytes()
    refused = 0
    for bit in range(8 * len(content)):
        try:
            found = parse_record(flipped(content, bit), "x")
        except UserError:
            refused += 1
            continue
        assert {name: found[name] for name in data} == data  # in the key of the checksum, or around it
    assert refused > 8 * (len(content) - 20)


@pytest.mark.parametrize("checksum", ["", "0" * 64, "a" * 64, "a", 7, None, [], {}, "a" * 10**5])
def test_json_with_another_checksum_is_refused(checksum):
    content = json.dumps({"state": "finished", "checksum": checksum}).encode()
    with pytest.raises(
        ChecksumError, match=r"^status: got 'content that does not fit its checksum'; allowed: the file as"
    ):
        parse_record(content, "status")


def test_yaml_every_flipped_bit_is_found(tmp_path):
    config = config_to_dict(RunConfig())
    write_config(tmp_path, config)
    content = (tmp_path / "config.yaml").read_bytes()
    written, expected = by_hand(content)
    assert written == expected
    assert yaml.safe_load(content) == yaml.safe_load(yaml.safe_dump(config))
    check_yaml(content, "x")
    check_yaml(content.rpartition(b"# checksum")[0], "of an earlier version, or changed by hand")
    end = 8 * len(content)
    for bit in [*range(0, end, 31), *range(end - 8 * 90, end)]:
        try:
            check_yaml(flipped(content, bit), "x")
            found = parse_yaml(flipped(content, bit), "x")
        except UserError:
            continue
        assert found == parse_yaml(content, "x")  # in the word "checksum" of the comment


def test_parquet_flipped_bits_are_found(make_run):
    folder = make_run(epochs=12)
    write_parquet(folder)
    content = (folder / "snapshots.parquet").read_bytes()
    expected, refused, rng = parse_snapshots(content, "x").to_pylist(), 0, random.Random(0)
    assert (len(expected), by_hand(content)[0]) == (12, by_hand(content)[1])
    bits = rng.sample(range(8 * len(content)), 300)
    for bit in bits:
        try:
            found = parse_snapshots(flipped(content, bit), "x").to_pylist()
        except (UserError, KeyError, TypeError):
            refused += 1
            continue
        assert found == expected
    assert refused > 290


def test_records_are_read_where_the_table_is_damaged_and_the_table_where_they_are(make_run):
    folder = make_run(epochs=4)
    write_parquet(folder)
    expected = read_run(folder)
    assert expected.problems == ()
    table, (first, *_) = folder / "snapshots.parquet", sorted(folder.glob("trials/t0/snapshots/*.json"))
    intact, record = table.read_bytes(), first.read_bytes()
    table.write_bytes(flipped(intact, 8 * intact.index(b"pruned") + 1))
    damaged = read_run(folder)
    assert damaged.snapshots == expected.snapshots
    assert ["snapshots.parquet cannot be read" in problem for problem in damaged.problems] == [True]
    table.write_bytes(intact)
    # A digit of an accuracy: still a number.
    first.write_bytes(re.sub(rb'("proxy_accuracy": 0\.\d)\d', rb"\g<1>0", record))
    assert first.read_bytes() != record
    again = read_run(folder)
    assert again.snapshots == expected.snapshots
    assert ["does not fit its checksum" in problem for problem in again.problems] == [True]


@pytest.mark.parametrize("name", ["trials/t0/status.json", "trials/t0/history.json", "config.yaml", "run.json"])
def test_every_other_record_is_not_believed_where_a_bit_flipped(name, make_run):
    folder = make_run(epochs=3)
    content = (folder / name).read_bytes()
    digit = [found.start() for found in re.finditer(rb"\d", content.partition(b"checksum")[0])][-1]
    (folder / name).write_bytes(flipped(content, 8 * digit))
    found = read_run(folder)
    assert [name.rpartition("/")[2] in problem and "checksum" in problem for problem in found.problems] == [True]
    assert (found.name, len(found.snapshots)) == ("demo", 3)
    (folder / name).write_bytes(re.sub(rb',?\s*"checksum": "\w*"|# checksum: \w*', b"", flipped(content, 8 * digit)))
    assert read_run(folder).problems == ()  # changed by hand, and said so
