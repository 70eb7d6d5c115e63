"""What all tasks of files share: a few lines of YAML, and data beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cuvee.core import CuveeError, did_you_mean
from cuvee.evaluate.data import Row, rows
from cuvee.evaluate.models import Model
from cuvee.evaluate.task import SPLITS, Item, Prediction, digest


class FileTask(BaseModel, ABC):
    """A task.yaml. Each kind is a subclass with the keys that only it knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    roles: ClassVar[tuple[str, ...]]
    """What a row must hold; `columns` may say under which names."""
    unit: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    name: str
    kind: str
    data: Mapping[Literal["train", "validation", "test"], str]
    columns: Mapping[str, str] = Field(default_factory=dict)
    source: str = ""
    licence: str = ""
    folder: Path = Field(exclude=True)

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        for role in columns:
            if role not in cls.roles:
                meant = did_you_mean(role, cls.roles)
                raise ValueError(f"{role!r} is no column of the task: it needs {', '.join(cls.roles)}.{meant}")
        return columns

    @property
    def splits(self) -> Sequence[str]:
        return [split for split in SPLITS if split in self.data]

    @property
    def fingerprint(self) -> str:
        return digest(self.kind, self.scoring())

    def scoring(self) -> dict[str, Any]:
        """The keys that decide a prediction, as JSON."""
        shared = {*FileTask.model_fields}
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in shared}

    def items(self, split: str) -> list[Item]:
        if split not in self.data:
            raise CuveeError(f"{self.name} has no {split} split; it has {', '.join(self.splits)}.")
        found = [self.item(row) for row in rows(self.folder / self.data[split])]  # type: ignore[index]
        if not found:
            raise CuveeError(f"{self.folder / self.data[split]}: holds no example.")  # type: ignore[index]
        return found

    def column(self, role: str) -> str:
        return self.columns.get(role, role)

    @abstractmethod
    def item(self, row: Row) -> Item:
        """The example of a row. Raises CuveeError with the row's place."""

    @abstractmethod
    def predict(self, model: Model, items: Sequence[Item]) -> Iterator[tuple[int, Prediction]]: ...
