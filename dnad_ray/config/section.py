"""What the sections of a configuration have in common: their kinds of numbers, and how they refuse a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnad_ray.errors import ConfigError

__all__ = ["Count", "NonNegative", "Positive", "RefusedError", "Section", "Share", "Words", "config_error"]

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen, with a doc line per field; unknown keys and numbers that are none are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Words(str):
    """Text that an error message shows without quotes, where the value itself would be hard to read."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class RefusedError(ConfigError):
    """What a validator of a section raises.

    Args:
        where: Key within the section.
        given: Its value.
        allowed: What would have been accepted, in words.
        why: What is wrong with it where ``allowed`` does not say so: "which has no effect with ...".
    """

    def __init__(self, where: str, given: object, allowed: str, why: str = "") -> None:
        super().__init__(where, Words(f"{given!r}, {why}") if why else given, allowed)


def config_error(error: ValidationError, model: type[BaseModel], before: str) -> ConfigError:
    """Return the first of pydantic's errors in our words.

    Args:
        error: What pydantic raised.
        model: The section that was validated.
        before: What stands before the key in the message: the origin, with what divides it from the key.
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
    return ConfigError(f"{before}{key}", first["input"], first["msg"][0].lower() + first["msg"][1:])


def _part(model: Any, path: Sequence[int | str]) -> Any:
    """Return the section that stands below another one; on the way there may be a dictionary of sections."""
    for name in path:
        model = model.model_fields[name].annotation if hasattr(model, "model_fields") else get_args(model)[-1]
    return model
