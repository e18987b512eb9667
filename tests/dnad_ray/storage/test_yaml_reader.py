"""What YAML of others may hold, and what it may not."""

from __future__ import annotations

import importlib.util

import pytest
import yaml

from dnad_ray.config.recipes import RECIPES, recipe_named
from dnad_ray.config.run import config_to_dict
from dnad_ray.storage import yaml_reader
from dnad_ray.storage.yaml_reader import MAX_BYTES, MAX_DEPTH, YamlError, parse_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_of_every_recipe_comes_back(name):
    data = config_to_dict(recipe_named(name))
    text = yaml.safe_dump(data, sort_keys=False)
    assert yaml.safe_dump(parse_yaml(text, name), sort_keys=False) == text
    assert parse_yaml(text.encode(), name) == parse_yaml(text, name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LAUGHS, "alias"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "levels"),
        ("[" * 5000, "levels"),
        ("#" * (MAX_BYTES + 1), "at most"),
        ("a: 1\na: 2", "twice"),
        ("a: .inf", "finite"),
        ("a: .nan", "finite"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 0x" + "f" * 5000, "digits"),
        ("a: " + "1:" * 300_000 + "1", "digits"),
        ("a: " + "1:" * 300_000 + "1.5", "digits"),
        ("a: 9223372036854775808", "64 bits"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!int ''", "index"),
        ("a: !!int []", "scalar"),
        ("a: !!float ''", "index"),
        ('a: "\\udc00"', "character"),
        ('"\\udc00": 1', "character"),
        ("a: 2001-99-99", "constructor"),
        ("a: !!binary aGk=", "constructor"),
        ("!!set {a, b}", "constructor"),
        ("!!python/object/apply:os.system ['x']", "constructor"),
        ("!!python/name:os.system", "constructor"),
        ("? [1]\n: 2", "unhashable"),
        ("a: [", "parsing"),
        ("--- a\n--- b", "document"),
        ("\x00", "character"),
        (b"\xff", "YAML in UTF-8"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused_in_one_line(content, words):
    with pytest.raises(YamlError, match=r"^my file: got .*; allowed: ") as caught:
        parse_yaml(content, "my file")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_yaml_limits_are_reached_and_not_passed():
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    assert parse_yaml("#" * MAX_BYTES, "x") is None
    assert parse_yaml("[9223372036854775807, -9223372036854775808]", "x") == [2**63 - 1, -(2**63)]
    assert parse_yaml('"\\U0001F600 \\u00e4"', "x") == "\U0001f600 \u00e4"


MANY_FORMS = r"""
text: [plain, 'single ''quoted''', "double \u00e9 \"quoted\"", yes and no, 2001-01-01x, "", ~x]
numbers: [1, -2, 0x10, 1_000, 1:30, 1.5, .5, 1e3, 1.0e+3, -0.0]
others: {true: no, null: ~, empty: , nested: {deep: [[], {}]}}
block: |
  two
  lines
folded: >-
  one
  line
"""


@pytest.mark.parametrize("parser", ["libyaml", "Python"])
def test_yaml_parsers_agree(parser, monkeypatch):
    reader = yaml_reader
    if parser == "Python":  # as where PyYAML was built without libyaml
        monkeypatch.delattr(yaml, "CSafeLoader")
        spec = importlib.util.spec_from_file_location("reader_without_libyaml", yaml_reader.__file__)
        reader = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(reader)
    else:
        assert issubclass(reader._Loader, yaml.CSafeLoader)
    assert reader.parse_yaml(MANY_FORMS, "x") == {
        "text": ["plain", "single 'quoted'", 'double \u00e9 "quoted"', "yes and no", "2001-01-01x", "", "~x"],
        "numbers": [1, -2, 16, 1000, 90, 1.5, 0.5, "1e3", 1000.0, -0.0],
        "others": {True: False, None: None, "empty": None, "nested": {"deep": [[], {}]}},
        "block": "two\nlines\n",
        "folded": "one line",
    }
    refused = ((LAUGHS, "alias"), ("[" * 5000, "levels"), ("a: 1\na: 2", "twice"), ("!!set {a}", "constructor"))
    for content, words in refused:
        with pytest.raises(reader.YamlError, match=words):
            reader.parse_yaml(content, "x")
