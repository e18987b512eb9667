"""Ranges that a sweep draws config values from, as people write them: one kind and its bounds or choices."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Range"]


class Range(BaseModel):
    """Where a value is drawn from; exactly one of the kinds is given.

    >>> Range(loguniform=(0.01, 0.1)).kind
    'loguniform'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    uniform: tuple[float, float] | None = None
    """Any number between two, all equally likely."""
    loguniform: tuple[float, float] | None = None
    """Any number between two above 0, all factors equally likely."""
    integer: tuple[int, int] | None = None
    """A whole number from one to another, both included."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """One of these values."""

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> Range:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"range: got {', '.join(given) or 'nothing'}; allowed: one of {', '.join(type(self).model_fields)}"
            )
        if self.choice is None and not self.values[0] < self.values[1]:
            raise ValueError(f"{given[0]}: got {list(self.values)}; allowed: the lower bound first")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform: got {list(self.loguniform)}; allowed: bounds above 0")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """The two bounds, or the choices."""
        values: tuple[Any, ...] = getattr(self, self.kind)
        return values

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw a value, a plain Python one."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        low, high = self.values
        if self.kind == "integer":
            return int(generator.integers(low, high, endpoint=True))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        # The exponential of a rounded logarithm may fall out of the bounds by the last digit.
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)
