"""The manifest of a finished merge: what it was made from, how, and the hashes of what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import BaseModel, Field, ValidationError

from cuvee.core import CuveeError
from cuvee.store.directory import Directory
from cuvee.store.folder import read_json

MANIFEST = "cuvee.json"
"""Written last: its presence says that the merge is complete."""

CHECK = "manifest"
"""Key of xxh3-128 of all the rest."""

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(ge=0)]


class TensorEntry(BaseModel, extra="allow", strict=True):
    """A tensor: its file, the rule that made it, entries of a chunk, xxh3-128 of each chunk; and of what was read of
    its inputs."""

    file: Text
    rule: str
    chunk: Annotated[int, Field(ge=1)]
    chunks: list[Text]
    read: list[str] = []


class Manifest(BaseModel, extra="allow", strict=True):
    """What every manifest holds; those of merges hold `recipe` and the versions as well."""

    plan: Text
    recipe: dict[str, Any] = {}
    roots: list[str] = []
    inputs: list[dict[str, Any]] = []
    tensors: dict[str, TensorEntry]
    shards: list[tuple[Text, Whole]] = []
    carried: list[Text] = []
    numbers: dict[str, Any] = {}
    sides: dict[str, bool] = {}
    nonfinite: dict[str, Whole] = {}
    left_out: dict[str, str] = {}
    compiled: bool = False
    methods: dict[str, Any] = {}
    cuvee: str = ""
    torch: str = ""
    processor: str = ""


def read_manifest(folder: Path, start: Path | None = None) -> dict[str, Any] | None:
    """The manifest of a complete merge, or None. Its roots are absolute paths here.

    start: where the folder was when it was made, if it has moved; models are named from there.

    Raises CuveeError for one that is not as it was written, with the field where it can be told.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    told = read_json(path)
    try:
        held = Manifest.model_validate_json(json.dumps(told))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CuveeError(f"{path} is damaged: {where}: {first['msg']}.") from None
    for name in (*(entry.file for entry in held.tensors.values()), *(file for file, _ in held.shards)):
        if name.startswith("/") or ".." in name.split("/"):
            raise CuveeError(f"{path} is damaged: {name!r} is outside its folder.")
    unsigned(told, path)
    roots = [str((start or folder).resolve() / Path(root).expanduser()) for root in held.roots]
    return {**held.model_dump(exclude={"tensors", "recipe"}), **told, "roots": roots}


def write_manifest(folder: Directory, told: Mapping[str, Any], mode: int) -> None:
    """Write the manifest, and bring it to disk: the merge is complete."""
    text = json.dumps(signed(told), indent=1) + "\n"
    folder.write(MANIFEST, text.encode(), mode)
    folder.sync()


def signed(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of ours tells, with its digest under CHECK: damage is found, not forgery."""
    return {**told, CHECK: xxhash.xxh3_128_hexdigest(json.dumps(told, sort_keys=True).encode())}


def unsigned(told: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a file of ours tells, without its digest. Raises CuveeError where that does not fit."""
    rest = {key: value for key, value in told.items() if key != CHECK}
    if CHECK in told and signed(rest)[CHECK] != told[CHECK]:
        raise CuveeError(f"{path} is damaged, or was changed: it is not what was written.")
    return rest
