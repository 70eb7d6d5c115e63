"""Cuvée blends neural networks: any merge method, one recipe, at the speed of the disk, in bounded memory."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # `python -m cuvee` would take a module that is imported here from the folder that it is started in
    from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CuveeError": "cuvee.core",
    "Checkpoint": "cuvee.core",
    "Recipe": "cuvee.recipe",
    "add": "cuvee.api",
    "load": "cuvee.api",
    "merge": "cuvee.api",
    "explain": "cuvee.api",
    "score": "cuvee.evaluate.score",
    "compare": "cuvee.evaluate.compare",
    "pack": "cuvee.api",
    "unpack": "cuvee.api",
    "method": "cuvee.methods",
    "lora": "cuvee.lora",
    "methods": "cuvee.methods",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> "Any":
    """Import the rest when it is used: `cuvee --help` needs no torch."""
    if name in ("lora", "methods"):
        return import_module(_PUBLIC[name])
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cuvee' has no attribute {name!r}")
