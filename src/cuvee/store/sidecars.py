"""Files that belong to a model beside its weights: config, tokenizer, custom code, licence."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cuvee.core import Checkpoint, CuveeError
from cuvee.store.directory import Directory
from cuvee.store.folder import read_json
from cuvee.store.json_text import parse_json

WEIGHTS = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".gguf", ".ggml", ".onnx", ".h5", ".hdf5", ".keras"),
    *(".msgpack", ".npz", ".npy", ".tflite", ".mlmodel", ".pb", ".ot", ".distcp", ".pkl", ".pickle", ".incomplete"),
    *(".safetensors.index.json", ".bin.index.json", ".onnx_data", ".engine", ".zip", ".gz", ".zst", ".lock"),
}
"""Endings of weights in some format, and of what names their files."""

LEFT = re.compile(
    r"(README|cuvee)\.(md|json)|\..*|adapter_(config|model)\..*|config\.json|training_args\..*|trainer_state\.json"
    r"|(optimizer|scheduler|scaler|rng_state|random_states).*|events\.out\..*|zero_to_fp32\.py|latest|.*results\.json"
)
"""Files that are not the model's: what we write ourselves, hidden ones, and what a training run leaves."""

FOLDERS_LEFT = re.compile(
    r"\..*|cuvee|runs|logs|wandb|onnx|openvino|coreml|original|metal|checkpoint-\d+|global_step\d+|pytorch_model_fsdp.*"
    r"|__pycache__|optimizer.*"
)
"""Folders of other formats of the weights, and of training runs."""

DEEPEST = 3
"""Folders within folders that are looked through."""

TOKENIZER_CONFIG = "tokenizer_config.json"

QUANTISED = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}
"""Files beside a model that say how its weights are quantised."""


def carried(donor: Path) -> list[str]:
    """Names of the files in a model's folder that describe it but hold no weights."""
    return sorted(str(path.relative_to(donor)) for path in _carried(donor, donor))


def carried_of(names: Iterable[str]) -> list[str]:
    """Of a repository's files, by their names alone, those that `carried` would give of its folder."""
    paths = [PurePosixPath(name) for name in names]
    beside: dict[PurePosixPath, set[str]] = {}
    for path in paths:
        beside.setdefault(path.parent, set()).add(path.name)

    def passed(folder: PurePosixPath) -> bool:
        return _is_passed(folder.name, beside.get(folder, set()))

    return sorted(
        str(path)
        for path in paths
        if len(path.parts) - 1 <= DEEPEST
        and not any(passed(folder) for folder in path.parents if folder.name)
        and _is_carried(path.name, top=len(path.parts) == 1)
    )


def carry_over(donor: Path, out: Directory, names: Iterable[str]) -> None:
    """Copy files from a model's folder; nothing is run."""
    for name in names:
        out.copy(donor / name, name)


def write_chat_template(out: Directory, template: str) -> None:
    """The one chat template of a model: others, in older places that loaders may look at first, are taken out."""
    if out.stat(TOKENIZER_CONFIG):
        told = read_json(out.path / TOKENIZER_CONFIG)
        if told.pop("chat_template", None) is not None:
            out.write(TOKENIZER_CONFIG, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
    out.remove("chat_template.json")
    out.write("chat_template.jinja", template.encode())


def write_config(out: Directory, config: Mapping[str, Any]) -> None:
    if config:
        out.write("config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def write_index(out: Directory, files: Mapping[str, str], total: int) -> None:
    """The index of a sharded model: tensor -> file. `total` is the size of all tensors in bytes."""
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    out.write("model.safetensors.index.json", (json.dumps(index, indent=2) + "\n").encode())


def quantisation_beside(checkpoint: Checkpoint) -> str | None:
    """How a file beside a model says that its weights are quantised; None where there is none."""
    if checkpoint.folder is None:
        return None
    for name, form in QUANTISED.items():
        path = checkpoint.folder / name
        try:
            said = parse_json(path.read_bytes()) if path.is_file() else None
        except (OSError, ValueError):
            said = None
        inner = said.get("quantization", said) if isinstance(said, dict) else None
        if isinstance(inner, dict) and any(inner.get(key) for key in ("quant_algo", "bits", "w_bit", "quant_method")):
            return f"{form}, by {name}"
    return None


def check_parts(folder: Path, label: str) -> None:
    """Raises CuveeError for a model of which other folders hold a part of the weights."""
    modules, pipeline = _json(folder / "modules.json"), _json(folder / "model_index.json")
    paths = [each.get("path") for each in modules if isinstance(each, dict)] if isinstance(modules, list) else []
    components = (
        [name for name, value in pipeline.items() if isinstance(value, list)] if isinstance(pipeline, dict) else []
    )
    for name in (*paths, *components):
        if isinstance(name, str) and name and ".." not in name and _has_weights(folder / name):
            if name in components:
                held = [each for each in components if _has_weights(folder / each)]
                raise CuveeError(
                    f"{label} is a pipeline with weights in {', '.join(held)}: these are not merged as a whole yet. "
                    f"Merge its components one by one, such as {label}/{held[0]}."
                )
            raise CuveeError(
                f"{label}: modules.json names {name}, which holds weights of its own: such parts are not merged yet. "
                "Merge models without it, or remove it from modules.json."
            )


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        return None


def _has_weights(folder: Path) -> bool:
    return folder.is_dir() and any(_is_weights(path.name) for path in folder.iterdir() if path.is_file())


def _is_weights(name: str) -> bool:
    return any(name.lower().endswith(ending) for ending in WEIGHTS)


def _is_carried(name: str, *, top: bool) -> bool:
    return not _is_weights(name) and not (top and LEFT.fullmatch(name))


def _is_passed(name: str, held: Collection[str]) -> bool:
    """Whether a folder, here with the names of its files, is passed over: it holds no part of the model."""
    model = "cuvee.json" in held or ("config.json" in held and any(_is_weights(each) for each in held))
    return model or FOLDERS_LEFT.fullmatch(name) is not None


def _carried(folder: Path, donor: Path, depth: int = 0) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            held = {each.name for each in path.iterdir() if each.is_file()}
            if depth < DEEPEST and not path.is_symlink() and not _is_passed(path.name, held):
                yield from _carried(path, donor, depth + 1)
        elif path.is_file() and _is_carried(path.name, top=folder == donor):
            yield path
