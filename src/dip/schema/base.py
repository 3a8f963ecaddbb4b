"""Types that all parts of the schema are made of."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import PydanticCustomError

# A name that is part of a file name; file systems take 255 bytes with all that is added to it.
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
NAME_EXPECTED = "expected small letters, digits and _, a letter first"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line break


def _some_text(value: str) -> str:
    r"""Refuse text that nobody would see in a table, and that is no path; and "\alpha", in which YAML reads a bell."""
    if not value.strip():
        raise PydanticCustomError("blank", "expected some text")
    if _CONTROL.search(value):
        raise PydanticCustomError("control", "a control character; between double quotes a backslash is written \\\\")
    return value


Text = Annotated[str, AfterValidator(_some_text)]


def _parse_scientific(value: Any) -> Any:
    """Read "1e-4" as a number: YAML 1.1 readers hand it over as text, YAML 1.2 readers as a number."""
    if isinstance(value, str) and value.lstrip("+-")[:1].isdigit() and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


MOST = 10**9  # of anything that is counted; with more, nothing would end
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOr0 = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Real = Annotated[float, BeforeValidator(_parse_scientific), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]


# Of a mapping whose order is seen in the result: two objects of JSON that differ in their order only are equal.
AsPairs = PlainSerializer(lambda mapping: list(mapping.items()), when_used="json")


def canonical_json(content: Any) -> str:
    """JSON that is equal for equal content in any order."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


class Schema(BaseModel):
    """A part of params.yaml: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def canonical(self) -> str:
        """The content as canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, content: str) -> Self:
        """The inverse of `canonical`.

        Raises:
            ValueError: The JSON is not of this class; the first mistake in one line.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
