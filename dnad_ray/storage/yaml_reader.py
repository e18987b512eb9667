"""The one reader of YAML: plain data of limited size and depth, without aliases.

A YAML alias has a few bytes and means a whole tree; ten of them in ten levels are ten billion nodes ("billion
laughs"). No configuration of ours has one.
"""

from __future__ import annotations

import math
from typing import Any, final

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode

from dnad_ray.errors import UserError, one_line

try:
    from yaml import CSafeLoader as Events  # libyaml's scanner takes a tenth of the time of Python's
except ImportError:
    from yaml import SafeLoader as Events  # type: ignore[assignment]

__all__ = ["MAX_BYTES", "MAX_DEPTH", "YamlError", "parse_yaml"]

MAX_BYTES = 2**20
"""Limit; a complete configuration has about 2,500."""

MAX_DEPTH = 16
"""Most levels of nested lists and mappings; a configuration has 5."""


class YamlError(UserError):
    """A text is not YAML, or has something that no configuration has."""


def parse_yaml(content: str | bytes, origin: str) -> Any:
    """Parse a YAML document of plain data.

    Args:
        content: The document; bytes are UTF-8.
        origin: Where it came from, for error messages.

    Returns:
        Dictionaries, lists, text, finite numbers, booleans, None.

    Raises:
        YamlError: If it is larger than :data:`MAX_BYTES`, no YAML, nested deeper than :data:`MAX_DEPTH`, or if it
            has aliases, equal keys in a mapping, other tags (dates too), or numbers that are not finite.

    >>> parse_yaml("a: [1, 2.5, null]", "example")
    {'a': [1, 2.5, None]}
    """
    if len(content) > MAX_BYTES:
        raise YamlError(origin, f"{len(content):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError(origin, f"no text ({error.reason} at byte {error.start})", "YAML in UTF-8") from None
    # Besides its own errors, the library passes on those of wrong dates and numbers.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise YamlError(origin, one_line(error)[:300], "YAML that parses") from None


@final
class _Loader(Events, Composer):
    """Builds plain data only, and counts."""

    def __init__(self, stream: str) -> None:
        Events.__init__(self, stream)
        Composer.__init__(self)
        self._depth = 0

    def get_single_node(self) -> Node | None:
        node: Node | None = Composer.get_single_node(self)  # libyaml's own would not ask compose_node
        return node

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias; write the value out")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels")
        node: Node | None = Composer.compose_node(self, parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(result) != len(node.value):
            raise yaml.YAMLError(f"a key twice in one mapping, {node.start_mark}")
        return result

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.YAMLError(f"{node.value}, no finite number")
        return value


# Dates, sets, binary data and ordered mappings are refused with all other tags.
_TAGS: tuple[str | None, ...] = (
    *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "seq", "map", "str")),
    None,
)
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
