"""Parameters of a pack: one value for all tasks, or one for each; checked by the kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cuvee.core import CuveeError, did_you_mean
from cuvee.store.packs import Kind


def settings_of(kind: Kind[Any], name: str, given: Mapping[str, Any], tasks: Sequence[str]) -> list[Any]:
    """The kind's parameters for each task. Raises CuveeError for an unknown one, a wrong value, an unknown task."""
    fields = kind.params.model_fields
    for key in given:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise CuveeError(f"{name} has no parameter {key!r}.{did_you_mean(key, fields)}  (it has: {known})")
    each: list[dict[str, Any]] = [{} for _ in tasks]
    for key, value in given.items():
        for own, part in zip(each, _apart(key, value, fields[key], tasks), strict=True):
            own.update(part)
    return [_checked(kind, name, own) for own in each]


def _apart(key: str, value: Any, field: Any, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The value for each task, as `{key: value}`; nothing where a mapping leaves a task out."""
    if not (field.json_schema_extra or {}).get("per_task"):
        return [{key: value}] * len(tasks)
    if isinstance(value, Mapping):
        for task in value:
            if task not in tasks:
                raise CuveeError(f"{key}: there is no task {task!r}.{did_you_mean(str(task), tasks)}")
        return [{key: value[task]} if task in value else {} for task in tasks]
    if isinstance(value, (list, tuple)) and field.annotation is float:
        if len(value) != len(tasks):
            raise CuveeError(f"{key}: {len(value)} values for {len(tasks)} tasks.")
        return [{key: each} for each in value]
    return [{key: value}] * len(tasks)


def _checked(kind: Kind[Any], name: str, own: Mapping[str, Any]) -> Any:
    try:
        return kind.params.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        meaning = kind.params.model_fields[key].description
        told = first["msg"].removeprefix("Input ")
        raise CuveeError(f"{name}: {key}={own[key]!r} {told}.  ({key}: {meaning})") from None
