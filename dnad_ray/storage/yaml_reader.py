"""The one reader of YAML: plain data of limited size and depth, without aliases.

A YAML alias has a few bytes and means a whole tree; ten of them in ten levels are ten billion nodes ("billion
laughs"). No configuration of ours has one.
"""

from __future__ import annotations

import math
from functools import lru_cache
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

_LONGEST_KEPT = 100


_MOST_DIGITS = 400
"""Of a number: 1e-300 written out still fits."""


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
            has aliases, equal keys in a mapping, other tags (dates too), tags that do not fit their values, half of a
            surrogate pair, numbers that are not finite, or integers that do not fit 64 bits.

    >>> parse_yaml("a: [1, 2.5, null]", "example")
    {'a': [1, 2.5, None]}
    """
    if len(content) > MAX_BYTES:
        raise YamlError(origin, f"{len(content):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        try:
            return _plain_document(text)
        # Whatever is not plain is read again, with all checks: that is rare, and may be right.
        except (_UnusualError, yaml.YAMLError, ValueError, TypeError, OverflowError):
            pass
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError(origin, f"no text ({error.reason} at byte {error.start})", "YAML in UTF-8") from None
    # Besides its own errors, the library passes on those of values that do not fit their tags, such as "!!bool maybe".
    except (yaml.YAMLError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
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

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        text: Any = super().construct_scalar(node)
        str(text).encode()  # raises a ValueError for half a character, "\udc00", which only an escape can bring in
        return text

    def construct_yaml_int(self, node: ScalarNode) -> int:
        _check_length(node)
        value: int = super().construct_yaml_int(node)
        if not -(2**63) <= value < 2**63:
            raise yaml.YAMLError(f"{node.value}, no integer of at most 64 bits")
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        _check_length(node)
        value: float = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.YAMLError(f"{node.value}, no finite number")
        return value


def _check_length(node: ScalarNode) -> None:
    """Refuse numbers of thousands of digits: to convert them takes time that grows with the square of their length."""
    if len(node.value) > _MOST_DIGITS:
        raise yaml.YAMLError(f"a number of {len(node.value):,} digits, at most {_MOST_DIGITS}, {node.start_mark}")


class _UnusualError(Exception):
    """A document has something that :func:`_plain_document` leaves to the loader."""


def _plain_document(text: str) -> Any:
    """Build the data of a document of plain scalars, lists and mappings from the events of the parser.

    Nodes with tags, which the loader makes of events first, take four fifths of its time.
    """
    parser = Events(text)
    parents: list[list[Any] | dict[Any, Any]] = [[]]
    keys: list[Any] = [None]  # of the value that comes next, by parent; a tuple of it, as None is a key too
    num_documents = 0
    try:
        while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
                if event.tag is not None or event.anchor is not None or len(parents) >= MAX_DEPTH:
                    raise _UnusualError
                parent = parents[-1]
                value: Any
                if is_scalar := isinstance(event, yaml.ScalarEvent):
                    scalar = _scalar if len(event.value) <= _LONGEST_KEPT else _scalar.__wrapped__
                    value = scalar(event.value, event.implicit[0])
                else:
                    value = {} if isinstance(event, yaml.MappingStartEvent) else []
                if isinstance(parent, list):
                    parent.append(value)
                elif keys[-1] is None:
                    if not is_scalar or value in parent:
                        raise _UnusualError
                    keys[-1] = (value,)
                else:
                    parent[keys[-1][0]] = value
                    keys[-1] = None
                if not is_scalar:
                    parents.append(value)
                    keys.append(None)
            elif isinstance(event, yaml.CollectionEndEvent):
                parents.pop()
                keys.pop()
            elif isinstance(event, yaml.AliasEvent):
                raise _UnusualError
            elif isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise _UnusualError
    finally:
        parser.dispose()
    return parents[0][0] if num_documents else None


@lru_cache(maxsize=4096)
def _scalar(text: str, is_plain: bool) -> Any:
    """Return the value of a scalar without a tag; keys and values recur from one configuration to the next."""
    loader = _Loader("")
    tag = loader.resolve(ScalarNode, text, (is_plain, not is_plain))  # type: ignore[no-untyped-call]
    return loader.construct_object(ScalarNode(tag, text))


# Dates, sets, binary data and ordered mappings are refused with all other tags.
_TAGS: tuple[str | None, ...] = (
    *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "seq", "map", "str")),
    None,
)
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
