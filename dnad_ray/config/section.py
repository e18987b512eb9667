"""The base class of the sections of a configuration, its number types and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnad_ray.errors import ConfigError

__all__ = [
    "LARGEST",
    "MOST_TRIALS",
    "Amount",
    "Count",
    "CountOrZero",
    "Decay",
    "Growth",
    "Integer",
    "NonNegative",
    "Number",
    "Positive",
    "RefusedError",
    "Section",
    "Seed",
    "Share",
    "Words",
    "config_error",
]

LARGEST = 1e30
"""Largest size of any number in a configuration. Torch refuses scalars above 3e38, and some are multiplied."""

_MOST = 10**9
_MOST_MACS = 10**18

MOST_TRIALS = 10_000
"""Most trials of a sweep: each is validated before the first one starts."""

# Every number of a configuration has one of these types, or closer bounds of its own.
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Growth = Annotated[float, Field(ge=1, le=LARGEST)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=_MOST)]
Amount = Annotated[int, Field(ge=1, le=_MOST_MACS)]
Integer = Annotated[int, Field(ge=-_MOST_MACS, le=_MOST_MACS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A frozen section with a docstring per field. Unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Words(str):
    """Text that an error message shows without quotes, if the value itself would be hard to read."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class RefusedError(ConfigError):
    """The error that a validator of a section raises.

    Args:
        where: Key within the section.
        given: The value.
        allowed: The allowed values, in words.
        why: The reason, if ``allowed`` does not give it: "which has no effect with ...".
    """

    def __init__(self, where: str, given: object, allowed: str, why: str = "") -> None:
        super().__init__(where, Words(f"{given!r}, {why}") if why else given, allowed)


def config_error(error: ValidationError, model: type[BaseModel], before: str) -> ConfigError:
    """Return the first of pydantic's errors as one of ours.

    Args:
        error: The error of pydantic.
        model: The section that was validated.
        before: Text before the key in the message: the origin and a separator.
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        fields = _part(model, first["loc"][:-1]).model_fields
        return ConfigError(f"{before}unknown key", key, "one of " + ", ".join(fields))
    refused = first.get("ctx", {}).get("error")
    if isinstance(refused, RefusedError):
        where = f"{key}.{refused.argument}" if key else refused.argument
        return ConfigError(f"{before}{where}", refused.given, refused.allowed)
    # "Input should be greater than 0" stands after "allowed:".
    allowed = first["msg"].removeprefix("Input should be ")
    return ConfigError(f"{before}{key}", first["input"], allowed[0].lower() + allowed[1:])


def _part(model: Any, path: Sequence[int | str]) -> Any:
    """Return the section at a path below another one; the path may go through dictionaries of sections."""
    for name in path:
        model = model.model_fields[name].annotation if hasattr(model, "model_fields") else get_args(model)[-1]
    return model
