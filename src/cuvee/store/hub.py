"""From a Hub id to a folder: the local cache, or a download of what a merge needs and no more."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cuvee.core import CuveeError, nearest

TIMEOUT = 10.0
"""Seconds to wait for the Hub's first answer."""

_ID = re.compile(r"(?P<repo>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[\w./-]+))?")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|bin)$")
_BESIDE = ("*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken")
_LANDMARKS = ("config.json", "adapter_config.json", "model.safetensors", "adapter_model.safetensors")
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin")


def resolve(reference: str) -> Path:
    """The folder of a model or an adapter on the Hub: `name`, `owner/name`, either with `@revision`.

    What is in the cache serves when the Hub cannot be asked. Raises CuveeError, in one line, for a reference that is
    neither a local path nor such an id, and for a model that cannot be had.
    """
    match = _ID.fullmatch(reference)
    if match is None:
        raise CuveeError(f"no such file or folder: {reference}.{_sibling(reference)}")
    try:
        import huggingface_hub.constants
    except ImportError:
        raise CuveeError(
            f"no such file or folder: {reference}.{_sibling(reference)} If it is a Hub id: pip install 'cuvee[hf]'"
        ) from None
    repo, revision = match["repo"], match["revision"]
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        found: Path | str = "HF_HUB_OFFLINE is set"
    else:
        found = _download(huggingface_hub, reference, repo, revision)
    return found if isinstance(found, Path) else _cached(huggingface_hub, reference, repo, revision, found)


def wanted(files: Iterable[str]) -> list[str]:
    """Of a repository's files, those to fetch: one set of weights at the top level, config and tokenizer.

    Pickles are fetched only where there are no safetensors, a second copy (`consolidated.safetensors`) not at all.
    """
    top = [file for file in files if "/" not in file]
    weights = [file for file in top if file.endswith(".safetensors")]
    weights = weights or [file for file in top if any(fnmatch(file, pattern) for pattern in _PICKLES)]
    if any(file.endswith((".safetensors.index.json", ".bin.index.json")) for file in top):
        weights = [file for file in weights if _SHARD.search(file)] or weights
    else:
        single = [file for file in weights if file in ("model.safetensors", "adapter_model.safetensors")]
        weights = single or weights
    return weights + [file for file in top if any(fnmatch(file, pattern) for pattern in _BESIDE)]


def _download(hub: Any, reference: str, repo: str, revision: str | None) -> Path | str:
    """The folder, up to date; or, when the Hub cannot be asked, why not."""
    refusals = (hub.utils.RepositoryNotFoundError, hub.utils.RevisionNotFoundError, hub.utils.GatedRepoError)
    try:
        info = hub.HfApi().model_info(repo, revision=revision, timeout=TIMEOUT)
        files = wanted(sibling.rfilename for sibling in info.siblings or ())
        if not any(file.endswith((".safetensors", ".bin")) for file in files):
            raise CuveeError(f"{reference}: the repository has no safetensors and no pytorch_model.bin at its top.")
        patterns = [glob.escape(file) for file in files]
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns, etag_timeout=TIMEOUT))
    except CuveeError:
        raise
    except refusals as error:
        if isinstance(error, hub.utils.GatedRepoError):
            told = "the Hub asks for permission: accept its terms there, then log in with `hf auth login`."
        elif isinstance(error, hub.utils.RevisionNotFoundError):
            told = f"the Hub has no revision {revision} of it."
        else:
            told = f"no such folder, and no such model on the Hub (or it is private).{_sibling(reference)}"
        raise CuveeError(f"{reference}: {told}") from None
    except Exception as error:  # the library's network errors have no common base across its versions
        reason = (str(error) or "no answer").splitlines()[0]
        return f"the Hub cannot be reached ({type(error).__name__}: {reason.rstrip('.')})"


def _cached(hub: Any, reference: str, repo: str, revision: str | None, reason: str) -> Path:
    """The folder as it was fetched before. `snapshot_download` is not asked: it misses the files that we leave out."""
    hits = (hub.try_to_load_from_cache(repo, name, revision=revision) for name in _LANDMARKS)
    hit = next((hit for hit in hits if isinstance(hit, str)), None)
    if hit is None:
        raise CuveeError(f"{reference}: no such folder, not in the Hub's cache, and {reason}.{_sibling(reference)}")
    folder = Path(hit).parent
    if not any((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
        raise CuveeError(f"{reference}: the Hub's cache has no weights of it, and {reason}.")
    return folder


def _sibling(reference: str) -> str:
    """The entry of the parent folder that a misspelt path most likely meant."""
    path = Path(reference).expanduser()
    try:
        known = {entry.name.lower(): entry for entry in path.parent.iterdir()}
    except OSError:
        return ""
    close = nearest(path.name, known)
    return f" Did you mean {known[close]}?" if close else ""
