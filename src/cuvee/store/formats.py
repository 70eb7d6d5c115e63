"""What a file or a folder is, by its first bytes and its files' names; and what to do with one that is no model."""

from __future__ import annotations

import codecs
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from cuvee import limits
from cuvee.store.plain import open_plain

FIRST = 4096
"""Bytes that are looked at."""
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of `torch.save` before torch 1.6: a pickled number."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""How files of `torch.save` mostly end. What they hold is told by their bytes."""

_ANEW = "save it as safetensors with the library that wrote it"
_AGAIN = "download it again"
_ONNX = "an ONNX model, which cannot be merged: take the model that it was exported from"
_LFS = "a Git LFS pointer in place of the weights (git-lfs.com): run git lfs pull"
_GGUF = "a GGUF file of llama.cpp, which cannot be merged: take the model that it was made from"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"version https://git-lfs.github.com",
        _LFS,
    ),
    (0, b"version https://hawser.github.com", _LFS),
    (0, b"/annex/objects/", "a git-annex pointer in place of the weights: run git annex get"),
    (0, b"# xet version", "a Xet pointer in place of the weights: run git xet checkout, or download with hf download"),
    (0, b"GGUF", _GGUF),
    (0, b"FUGG", _GGUF),
    (0, b"lmgg", "a GGML file of llama.cpp, which cannot be merged: take the model that it was made from"),
    (0, b"tjgg", "a GGML file of llama.cpp, which cannot be merged: take the model that it was made from"),
    (0, b"algg", "a GGML adapter of llama.cpp, which cannot be merged: take the adapter that it was made from"),
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as Keras writes it: load it there, and {_ANEW}"),
    (0, b"\x93NUMPY", "an array of NumPy (npy): save arrays by name with safetensors.numpy.save_file"),
    (4, b"TFL3", "a TensorFlow Lite model, which cannot be merged: take the model that it was made from"),
    (4, b"ET12", "an ExecuTorch program, which cannot be merged: take the model that it was made from"),
    (0, b"ftrt", "a TensorRT engine, which cannot be merged: take the model that it was made from"),
    (0, b"ptrt", "a TensorRT engine, which cannot be merged: take the model that it was made from"),
    (0, b"PAR1", "a Parquet file: data, not weights"),
    (0, b"ARROW1", "an Arrow file: data, not weights"),
    (0, b"SQLite format 3", "an SQLite database, not weights"),
    (0, b"\x89PNG", "a picture, not weights"),
    (0, b"\xff\xd8\xff", "a picture, not weights"),
    (0, b"%PDF", "a PDF, not weights"),
    (0, b"\x7fELF", "a program, not weights"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it, and give what is inside"),
    (0, b"BZh", "a bzip2 archive: unpack it, and give what is inside"),
    (0, b"\xfd7zXZ\x00", "an xz archive: unpack it, and give what is inside"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it, and give what is inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it, and give what is inside"),
    (0, b"Rar!", "a rar archive: unpack it, and give what is inside"),
    (257, b"ustar", "a tar archive: unpack it, and give what is inside"),
)
_DCP = (
    "a checkpoint of torch.distributed.checkpoint (FSDP): gather it first by "
    "accelerate merge-weights DIR OUT, or python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE"
)
_DEEPSPEED = "run its zero_to_fp32.py first, which gathers the weights"
_VERL = (
    "a shard of a model that verl cut over several ranks (FSDP): gather them first by "
    "python -m verl.model_merger merge --backend fsdp --local_dir DIR --target_dir OUT"
)
_MEGATRON = "a checkpoint of Megatron: convert it to the Hugging Face format first, with Megatron's own tools"
_OF_NAMES: tuple[tuple[str, str], ...] = (
    (r".*\.(incomplete|part|partial|crdownload|download|aria2|tmp|!qb)", "a download that did not end: start it again"),
    (r".*\.distcp", _DCP),
    (r".*\.gguf", _GGUF),
    (r".*optim_states\.pt", f"the optimiser's state of DeepSpeed, not weights: {_DEEPSPEED}"),
    (r".*zero_pp_rank_\d+_.*model_states\.pt", f"one rank's part of a DeepSpeed ZeRO-3 checkpoint: {_DEEPSPEED}"),
    (r"model_world_size_(?!1_)\d+_rank_\d+\.pt", _VERL),
    (r"(optim|extra_state)_world_size_\d+_rank_\d+\.pt", "a state of the training run that verl kept, not weights"),
    (r"training_args\.bin", "the settings of a training run, not weights"),
    (
        r"(distrib_)?optim(izer)?(_\d+)?\.(bin|pt|pth|safetensors)",
        "optimiser states of a training run, not weights",
    ),
    (r"(lr_)?scheduler(_\d+)?\.(bin|pt|pth)", "the state of a learning-rate schedule, not weights"),
    (r"(rng_state(_\d+)?|random_states_\d+)\.(pt|pth|pkl)", "the state of random numbers, not weights"),
    (r"(scaler|sampler|dataloader|dl_state_dict)(_\d+)?\.(bin|pt|pth)", "a state of a training run, not weights"),
    (r".*\.ckpt.*\.(index|meta|data-\d+-of-\d+)", f"a part of a TensorFlow checkpoint: load it there, and {_ANEW}"),
    (r"variables\.(index|data-\d+-of-\d+)", f"a part of a TensorFlow SavedModel: load it there, and {_ANEW}"),
    (r".*\.pb", f"a graph of TensorFlow: load it there, and {_ANEW}"),
    (r".*\.msgpack", f"a file of Flax (msgpack): load it there, and {_ANEW}"),
    (r".*\.onnx(_data|\.data)?", _ONNX),
    (r".*\.(pdparams|pdopt)", f"a file of PaddlePaddle: load it there, and {_ANEW}"),
    (r".*\.nemo", "an archive of NeMo: unpack it, or convert it to the Hugging Face format"),
)
_LEFT = re.compile(r".*(training run|schedule|random numbers|verl kept|DeepSpeed, not weights).*")
_TEXTS = (".json", ".txt", ".md", ".py", ".jinja", ".yaml", ".yml", ".model", ".jsonl", ".csv", ".log", ".lock")
_SHOWN = 60
"""Characters of a text that a message shows."""


def stored_as(path: Path) -> str | None:
    """`safetensors` or `torch` for a file that begins as those do, whatever its name; None for any other.

    Raises OSError.
    """
    head, size = _begin(path)
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith(LEGACY) or (head.startswith(b"PK\x03\x04") and _zip(path, head) is None):
        return "torch"
    return None


def foreign(path: Path) -> str | None:
    """What a file is that holds no weights to merge, and the way on; None for one that may be a model, or unknown.

    The sentence goes behind the file's name and a colon. Raises OSError.
    """
    head, size = _begin(path)
    if told := of_name(path.name):
        return told
    if not size:
        return f"an empty file: {_AGAIN}"
    if _is_safetensors(head, size):
        return None
    for offset, magic, told in _MAGIC:
        if head.startswith(magic, offset):
            return told
    if head.startswith(LEGACY):
        return None
    if head.startswith(b"PK\x03\x04"):
        return _zip(path, head)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle that torch.save did not write, which is not read: save the tensors by name as safetensors"
    if size > 2 and head[:1] == b"\x08" and 0 < head[1] < 64 and head[2:3] in b"\x12\x1a\x22\x28\x32\x3a\x42\x72":
        return _ONNX
    if (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)) and _is_msgpack_text(head):
        return f"a file of Flax (msgpack): load it there, and {_ANEW}"
    if not head.strip(b"\0"):
        return f"only zero bytes, as of a download that did not end: {_AGAIN}"
    return _text(path, head, size)


def may_hold_weights(path: Path) -> bool:
    """Whether a file in a folder may be its weights: by its bytes, and not among what training runs keep besides.

    Raises OSError.
    """
    if path.suffix.lower() in _TEXTS or path.name.startswith(".") or of_name(path.name):
        return False
    return stored_as(path) is not None or (path.suffix in PICKLES and foreign(path) is None)


def of_name(name: str) -> str | None:
    """What a file is that is told by its name alone, such as the states of a training run; None for any other."""
    return next((told for pattern, told in _OF_NAMES if re.fullmatch(pattern, name, re.IGNORECASE)), None)


def flat_parameters(names: Iterable[str]) -> str | None:
    """The first name that is of FSDP's flat parameters, which are many tensors in one; None without such."""
    return next((name for name in names if name.rpartition(".")[2] in ("_flat_param", "flat_param")), None)


def without_weights(folder: Path) -> str:
    """Why a folder in which no weights were found has none, and the way on: goes behind its name and a colon."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return error.strerror or str(error)
    names = [entry.name for entry in entries]
    if told := _kind_of_folder(folder, names):
        return told
    found = {entry.name: told for entry in entries if entry.is_file() and (told := _told(entry))}
    others = [f"{name} is {told}" for name, told in found.items() if not _LEFT.match(told)]
    if others:
        return f"no weights: {others[0]}"
    if any(folder.glob(".cache/huggingface/download/**/*.incomplete")):
        return "no weights: its download did not end: start it again"
    inner = [entry.name for entry in entries if entry.is_dir() and _has_weights(entry)]
    if inner:
        return f"no weights at its top; {', '.join(inner[:5])} {'has' if len(inner) == 1 else 'have'} some: give that"
    if found:
        return f"no weights: {', '.join(found)} {'is' if len(found) == 1 else 'are'} what a training run kept besides"
    return "no safetensors files, and none of torch.save" if names else "an empty folder"


def of_repository(files: Iterable[str]) -> str:
    """What the files of a repository without weights are, by their names: ` It holds ...`, or nothing."""
    files = list(files)
    told = _kind_of_folder(None, [file.split("/")[0] for file in files])
    named = ((file, of_name(Path(file).name)) for file in files if "/" not in file)
    told = told or next((f"{file} is {what}" for file, what in named if what and not _LEFT.match(what)), None)
    return f" {told[0].upper()}{told[1:]}." if told else ""


def _begin(path: Path) -> tuple[bytes, int]:
    with open_plain(path) as file:
        head = file.read(FIRST)
    return head, path.stat().st_size


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return size > 9 and head[8:9] == b"{" and 2 <= length <= limits.HEADER


def _zip(path: Path, head: bytes) -> str | None:
    """What a zip archive is; None for one of `torch.save`, whole or cut short."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode(errors="replace")
        cut = first.endswith("/data.pkl") or not first.endswith(".npy")
        return None if cut else f"an archive of NumPy (npz), cut short: {_AGAIN}"
    inner = [name.partition("/")[2] for name in names if name.count("/")]
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "a TorchScript program: load it with torch.jit.load, and save the state_dict() of what that gives"
    if "data.pkl" in inner:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy (npz): save its arrays by name with safetensors.numpy.save_file"
    if any(name.endswith(".weights.h5") for name in names):
        return f"a model of Keras: load it there, and {_ANEW}"
    if any(name.endswith(("archive_format", "/archive_version")) for name in names):
        return "a program of torch.export: load it with torch.export.load, and save the state_dict of what that gives"
    return "a zip archive that torch.save did not write: unpack it, and give what is inside"


def _is_msgpack_text(head: bytes) -> bool:
    """Whether a mapping's first key is text, as names are."""
    at = 1 + {0xDE: 2, 0xDF: 4}.get(head[0], 0)
    return len(head) > at and (0xA1 <= head[at] <= 0xBF or head[at] in (0xD9, 0xDA))


def _text(path: Path, head: bytes, size: int) -> str | None:
    """What a text is that lies where weights should be; None for bytes that are no text."""
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml|error|!--)", head.lower()):
        return f"a web page (HTML or XML) in place of the weights, as of an error or a log-in: {_AGAIN}"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=size <= FIRST).strip()
    except UnicodeDecodeError:
        return None
    if not text or not (text.isprintable() or all(line.isprintable() for line in re.split(r"[\r\n\t]+", text))):
        return None
    shown = " ".join(text.split())[:_SHOWN]
    if text.startswith(("{", "[")):
        if path.name.endswith(".index.json"):
            return "the index of a model: give its folder"
        if path.name in ("config.json", "adapter_config.json"):
            return "the config of a model: give its folder"
        return f"JSON in place of the weights ({shown}), as a server's error is: {_AGAIN}"
    return f"text in place of the weights ({shown}): {_AGAIN}"


def _told(path: Path) -> str | None:
    if path.suffix.lower() in _TEXTS or path.name.startswith("."):
        return None
    try:
        return foreign(path)
    except OSError:
        return None


def _has_weights(folder: Path) -> bool:
    found = (*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"), *folder.glob("adapter_model.bin"))
    return bool(found)


def _kind_of_folder(folder: Path | None, names: list[str]) -> str | None:
    """What a folder is by the names in it; `folder`, where there is one, to look a level deeper."""

    def some(pattern: str) -> list[str]:
        return [name for name in names if re.fullmatch(pattern, name)]

    deeper = [file.parent.name for file in folder.glob("*/.metadata")] if folder else []
    if ".metadata" in names or some(r".*\.distcp"):
        return _DCP
    if some(r"zero_to_fp32\.py|global_step\d+|.*zero_pp_rank.*|.*optim_states\.pt"):
        steps = some(r"global_step\d+")
        return f"a checkpoint of DeepSpeed, whose weights lie in {steps[-1] if steps else 'parts'}: {_DEEPSPEED}"
    if inner := some(r"pytorch_model_fsdp_\d+") or deeper:
        return f"no weights at its top; {inner[0]} is {_DCP}"
    if some(r"model_world_size_\d+_rank_\d+\.pt"):
        return _VERL.replace("a shard", "shards")
    if len(some(r"consolidated\.\d+\.pth")) > 1:
        return "a model in parts, as Meta publishes them: convert it to the Hugging Face format first"
    if some(r"latest_checkpointed_iteration\.txt|mp_rank_\d+|iter_\d{7}"):
        return _MEGATRON
    if some(r".*\.ckpt.*\.index"):
        return f"a checkpoint of TensorFlow: load it there, and {_ANEW}"
    if some(r"saved_model\.pb"):
        return f"a SavedModel of TensorFlow: load it there, and {_ANEW}"
    if some(r"_CHECKPOINT_METADATA|manifest\.ocdbt|\.zmetadata|_METADATA"):
        return f"a checkpoint of Orbax (JAX): load it there, and {_ANEW}"
    return None
