"""What JSON of others may hold, and what it may not."""

from __future__ import annotations

import json

import pytest

from search_spaces import json_reader
from search_spaces.json_reader import MAX_DEPTH, JsonError, parse_json


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 2**63 - 1, -(2**63), 0.1, -1e308, "", "\u00e9", "\U0001f600", [], {}, {"a": [{"b": [1.5]}]}],
)
def test_json_of_ours_comes_back_as_it_was(value):
    text = json.dumps(value)
    assert parse_json(text, "x") == parse_json(text.encode(), "x") == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a JSON document"),
        ("{", "a JSON document"),
        ("[" * 100_000, "a JSON document"),
        ("\ufeff{}", "a JSON document"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        ("NaN", "finite numbers"),
        ("[-Infinity]", "finite numbers"),
        ("1e999", "finite numbers"),
        (str(2**63), "at most 64 bits"),
        (str(-(2**63) - 1), "at most 64 bits"),
        ("1" + "0" * 400, "at most 64 bits"),
        ("1" * 5000, "at most 64 bits"),
        (b"\xff", "JSON in UTF-8"),
        ('"\\ud800"', "UTF-8 can hold"),
        ('{"\\uDC00": 1}', "UTF-8 can hold"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "levels"),
    ],
)
def test_json_that_is_none_of_ours_is_refused_in_one_line(content, words):
    with pytest.raises(JsonError, match=r"^my file: got .*; allowed: ") as caught:
        parse_json(content, "my file")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250


def test_json_limits_are_reached_and_not_passed():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    assert parse_json("[1]", "x", 3) == [1]
    with pytest.raises(JsonError, match="got '4 bytes'; allowed: at most 3"):
        parse_json("[12]", "x", 3)


def test_json_of_millions_of_records_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(json_reader, "_MOST_CONTAINERS", 4)
    monkeypatch.setattr(json_reader, "_MOST_VALUES", 5)
    monkeypatch.setattr(json_reader.json, "loads", lambda *_, **__: pytest.fail("it was read"))
    for content, words in (
        ("[{}, {}, {}, {}]", "'5 lists and objects'; allowed: at most 4"),
        (b"[0,0,0,0,0,0,0]", "'6"),
    ):
        with pytest.raises(JsonError, match=words):
            parse_json(content, "x")
    monkeypatch.undo()
    assert parse_json("[" + "{}," * 99_999 + "{}]", "x") == [{}] * 100_000
