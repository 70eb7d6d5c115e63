"""A checkpoint as a network that runs: transformers builds it from the config, the tensors come from the checkpoint."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cuvee import methods
from cuvee.core import Checkpoint, CuveeError
from cuvee.engine.merged import Merged
from cuvee.evaluate.custom_code import own_class, refuse, without_code
from cuvee.evaluate.task import digest
from cuvee.plan import build
from cuvee.recipe import Recipe
from cuvee.recipe.sources import is_recipe_file
from cuvee.store import open as store
from cuvee.store.content import content_digest
from cuvee.store.memory import StateDict

Reference = str | Path | Recipe | Checkpoint | Mapping[str, Tensor]
"""A model: a folder, a Hub id, MODEL+LORA, PACK@TASK, a recipe or a path to one, an opened checkpoint, tensors."""

ARCHITECTURES = {"efficientnet_lite": "cuvee.evaluate.zoo.vision.network"}
"""`model_type` of networks that transformers lacks -> the module that registers them with its Auto classes."""

_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""What a config tells of its making, not of the network."""

_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "tokenizer_config.json")


def opened(model: Reference) -> Checkpoint:
    """The checkpoint of a model, or of a merge that is not written. Raises CuveeError."""
    if isinstance(model, (str, Path)) and is_recipe_file(model):
        model = Recipe.load(Path(model))
    if not isinstance(model, Recipe):
        return store.load(model)
    if methods.get(model.merge_method).rank is not None:
        raise CuveeError(f"{model.merge_method} merges adapters: write the adapter, then score BASE+ADAPTER.")
    return Merged(build(model))


class Model:
    """A model that tasks can run, in float32 and evaluation mode. Nothing is loaded until it is used."""

    def __init__(self, checkpoint: Checkpoint, label: str | None = None, *, trust_remote_code: bool = False) -> None:
        """label: what messages call it, by default the checkpoint's. trust_remote_code: run code that it brings."""
        self.checkpoint, self._trusted = checkpoint, trust_remote_code
        self.label = label or checkpoint.label
        self.starting = 0.0
        """CPU seconds that went into loading tokenizer and network, and into the network's first run."""
        self._built: tuple[str, Any] = ("", None)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of tensors, config and tokenizer; of a merge that is not written, of its plan in place of tensors."""
        config = {key: value for key, value in self.checkpoint.config().items() if key not in _VOLATILE}
        files = _files(self.checkpoint.folder, (*_TOKENIZER, "*.py") if self._trusted else _TOKENIZER)
        return digest(_tensors(self.checkpoint), config, *files)

    @cached_property
    def nbytes(self) -> int:
        """Size of all tensors as they are stored."""
        return sum(self.checkpoint.spec(name).nbytes for name in self.checkpoint.names())

    @cached_property
    def tokenizer(self) -> Any:
        """Raises CuveeError where the model has none."""
        library = transformers()
        if self.checkpoint.folder is None:
            raise CuveeError(f"{self.label}: has no folder, and so no tokenizer.")
        try:
            with self._starts():
                return library.AutoTokenizer.from_pretrained(
                    self.checkpoint.folder, local_files_only=True, trust_remote_code=self._trusted
                )
        except Exception as error:  # whatever transformers and its parts make of files that are not as they should be
            if not self._trusted:
                refuse(self.label, self.checkpoint.folder, "AutoTokenizer")
            raise CuveeError(f"{self.label}: no tokenizer can be loaded: {_first_line(error)}") from None

    def network(self, auto: str = "AutoModel", unused: str | None = None) -> Any:
        """The transformers module of one of its Auto classes; the last one is kept. To be used in inference mode.

        unused: a part whose tensors may be missing. Raises CuveeError where config and tensors do not make one.
        """
        if self._built[0] != auto:
            self._built = (auto, None)  # the old one's memory is free before the new one is built
            with self._starts():
                self._built = (auto, self._build(auto, unused))
                _run_once(self._built[1])
        return self._built[1]

    @contextmanager
    def _starts(self) -> Iterator[None]:
        """Count what is done inside as the model's start."""
        began = time.process_time()
        try:
            yield
        finally:
            self.starting += time.process_time() - began

    def _build(self, auto: str, unused: str | None) -> Any:
        library = transformers()
        config = self._config(library)
        factory = getattr(library, auto)
        try:
            with torch.device("meta"):
                network = type(factory.from_config(config, trust_remote_code=self._trusted))
        except CuveeError:
            raise
        except Exception as error:  # numbers in a config may be any
            if not self._trusted:
                refuse(self.label, self.checkpoint.folder, auto)
            if isinstance(error, ValueError):
                raise CuveeError(f"{self.label}: a {config.model_type} cannot be had as {auto}.") from None
            raise CuveeError(f"{self.label}: its config.json makes no network: {_first_line(error)}") from None
        state = {name: _in_float32(self.checkpoint.read(name)) for name in self.checkpoint.names()}
        try:
            built, told = network.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
        except RuntimeError as error:
            raise CuveeError(f"{self.label}: {error}") from None
        lost = sorted(name for name in told["missing_keys"] if unused not in name.split("."))
        if lost:
            counted = f"{len(lost)} tensor{'s' * (len(lost) > 1)}"
            raise CuveeError(f"{self.label}: {counted} of {network.__name__} missing, first {lost[0]}.")
        return built.eval()

    def _config(self, library: Any) -> Any:
        folder, told = self.checkpoint.folder, without_code(self.checkpoint.config())
        kind = told.get("model_type")
        if not isinstance(kind, str):
            raise CuveeError(f"{self.label}: its config.json names no model_type, so no network can be built.")
        if kind in ARCHITECTURES:
            import_module(ARCHITECTURES[kind])
        own = self._trusted and own_class(folder, "AutoConfig") is not None
        if not own and kind not in library.CONFIG_MAPPING:
            refuse(self.label, folder, "AutoConfig")
            raise CuveeError(f"{self.label}: transformers {library.__version__} knows no {kind!r}.")
        try:
            if own:
                config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=True)
                config.dtype = None
                return config
            return library.CONFIG_MAPPING[kind].from_dict(
                {key: value for key, value in told.items() if key not in ("dtype", "torch_dtype")}
            )
        except Exception as error:  # whatever a config's values make of the config's class
            raise CuveeError(f"{self.label}: its config.json is no {kind}'s: {_first_line(error)}") from None


def _run_once(network: Any) -> None:
    """Run a network on what transformers tries networks with, where that fits it: a first run prepares kernels."""
    with suppress(Exception), torch.no_grad():
        network(**network.dummy_inputs)


def _in_float32(tensor: Tensor) -> Tensor:
    """Integers and booleans stay."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _tensors(checkpoint: Checkpoint) -> Any:
    """A digest of a model's tensors, whatever files hold them; of a view of others, what it is made of."""
    in_files = not checkpoint.computed and not isinstance(checkpoint, StateDict)
    return content_digest(checkpoint) if in_files else checkpoint.identity()


def _files(folder: Path | None, patterns: Sequence[str]) -> list[bytes]:
    if folder is None:
        return []
    return [path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def transformers() -> Any:
    """The library, which tells nothing but errors. Raises CuveeError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers as library
    except ImportError:
        raise CuveeError("Scoring needs transformers: pip install 'cuvee[hf]'.") from None
    logging: Any = library.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    library.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # nobody is asked on the terminal
    return library
