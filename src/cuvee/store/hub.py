"""From a Hub id to a folder: the local cache, or a download of what a merge needs and no more."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from cuvee.core import CuveeError, nearest
from cuvee.store import formats, sidecars
from cuvee.store.place import HERE, find

LARGEST = 200_000_000
"""Bytes of the largest file beside the weights that is fetched: tokenizers and code are far smaller, data is not."""

_PART = r"\w(?:[\w.-]{0,94}\w)?"
_ID = re.compile(rf"(?P<repo>(?:{_PART}/)?{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
"""Names have at most 96 characters on the Hub, all of them of ASCII."""
_ADDRESS = re.compile(
    r"(?:hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)(?:models/)?(?P<repo>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<at>[\w./-]+)|/(?:tree|blob|resolve)/(?P<revision>[\w.-]+))?(?:/.*)?"
)
_OTHER = re.compile(r"(?:hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)?(?P<kind>dataset|space)s/\w.*")
_SHARD = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})(?P<ending>\.(safetensors|bin))")
_BLOB = re.compile(r"[0-9a-f]{64}")
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
_SINGLE = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
_INDICES = (".safetensors.index.json", ".bin.index.json")
_MODULE = re.compile(r"\d+_\w+/[^/]+")


def resolve(reference: str) -> Path:
    """The folder of a model or an adapter on the Hub: `name`, `owner/name`, either with `@revision`.

    What is in the cache serves when the Hub cannot be asked, or gives it to others only. Raises CuveeError, in one
    line, for a reference that is neither a local path nor such an id, and for a model that cannot be had.
    """
    match = _id_of(reference)
    if match is None:
        raise CuveeError(f"no such file or folder: {reference}.{_meant(reference)}")
    try:
        from huggingface_hub import constants
    except ImportError:
        raise CuveeError(
            f"no such file or folder: {reference}.{sibling(reference)} If it is a Hub id: pip install 'cuvee[hf]'"
        ) from None
    repo, revision = match["repo"], match["revision"]
    cache = Path(constants.HF_HUB_CACHE)
    listed: dict[str, list[str]] = {}
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    else:
        try:
            return _download(reference, repo, revision, listed)
        except CuveeError:
            raise
        except Exception as error:  # the library's errors of network and files have no common base over its versions
            from cuvee.store.hub_faults import reason_of

            reason = reason_of(error, repo, begun=bool(listed))
    folder, lack = _cached(cache, repo, revision, listed)
    if folder is None:
        raise CuveeError(f"{reference}: {lack}, and {reason}.{sibling(reference)}")
    return folder


def is_hub_id(reference: str, roots: Iterable[Path] = HERE) -> bool:
    """Whether a reference means a model on the Hub, `owner/name` with or without a revision, and no local path."""
    return "/" in reference and _id_of(reference) is not None and find(reference, roots) is None


def _id_of(reference: str) -> re.Match[str] | None:
    """The repository and revision that a reference is the id of, by the Hub's own rules; None for any other text."""
    match = _ID.fullmatch(reference)
    odd = match is None or ".." in reference or "--" in match["repo"] or match["repo"].endswith(".git")
    return None if odd else match


def blob_hash(path: Path) -> str | None:
    """The SHA-256 of a file in a Hub cache, which is the name of the blob that it links to; None for any other file.

    Nothing is read. Only large files (LFS) are kept by this hash: small ones, by git's, give None.
    """
    try:
        blob = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return None
    return blob.name if blob.parent.name == "blobs" and _BLOB.fullmatch(blob.name) else None


def wanted(files: Iterable[str]) -> list[str]:
    """Of a repository's files, those to fetch: one set of weights at the top level, and what a merge carries over.

    Pickles are fetched only where there are no safetensors, a second copy (`consolidated.safetensors`) not at all.
    """
    files = list(files)
    top = [file for file in files if "/" not in file]
    weights = [file for file in top if file.endswith(".safetensors")]
    weights = weights or [file for file in top if any(fnmatch(file, pattern) for pattern in _PICKLES)]
    if any(file.endswith(_INDICES) for file in top):
        weights = [file for file in weights if _SHARD.fullmatch(file)] or weights
    else:
        weights = [file for file in weights if file in _SINGLE] or weights
    also = {"config.json", "adapter_config.json", *(file for file in top if file.endswith(_INDICES))}
    beside = sidecars.carried_of(files)
    # A module of sentence-transformers may hold weights: they are fetched, so that a merge sees them and says so.
    modules = [file for file in files if _MODULE.fullmatch(file)] if "modules.json" in top else []
    return list(dict.fromkeys([*weights, *(file for file in top if file in also), *beside, *modules]))


def sibling(reference: str) -> str:
    """The entry of the parent folder that a misspelt path most likely meant: ` Did you mean X?`, or nothing."""
    path = Path(reference).expanduser()
    try:
        known = {entry.name.lower(): entry for entry in path.parent.iterdir()}
    except OSError:
        return ""
    close = nearest(path.name, known)
    return f" Did you mean {known[close]}?" if close else ""


def _download(reference: str, repo: str, revision: str | None, listed: dict[str, list[str]]) -> Path:
    """The folder, up to date. What it is to hold is put into `listed`, by its commit, as soon as it is known."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    from cuvee.store.hub_faults import HFValidationError, RevisionNotFoundError

    wait = float(constants.HF_HUB_ETAG_TIMEOUT)
    try:
        info = HfApi().model_info(repo, revision=revision, timeout=wait, files_metadata=True)
    except HFValidationError:
        raise CuveeError(f"no such file or folder: {reference}.{sibling(reference)}") from None
    except RevisionNotFoundError:
        raise CuveeError(f"{reference}: the Hub has no revision {revision} of it.") from None
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    files = wanted(sizes)
    weights = [file for file in files if _is_weights(file)]
    if not weights:
        raise CuveeError(
            f"{reference}: the repository has no safetensors and no pytorch_model.bin at its top."
            f"{_parts(repo, sizes)}{formats.of_repository(sizes)}"
        )
    files = [file for file in files if file in weights or sizes[file] <= LARGEST]
    listed[info.sha or ""] = files
    home = _home(Path(constants.HF_HUB_CACHE), repo)
    folder = home / "snapshots" / (info.sha or "")
    if not _has(folder, files):
        # By its commit: asked for a branch, the library moves it before the files are there, and what was fetched
        # before could not be found any more if they do not come.
        patterns = [glob.escape(file) for file in files]
        folder = Path(snapshot_download(repo, revision=info.sha, allow_patterns=patterns, etag_timeout=wait))
        if not _has(folder, files):  # the library takes what it has when a request of its own fails
            raise ConnectionError("not all files came")
    if _commit(home, revision) != info.sha:
        hf_hub_download(repo, min(files, key=sizes.__getitem__), revision=revision, etag_timeout=wait)
    return folder


def _has(folder: Path, files: Iterable[str]) -> bool:
    return all((folder / file).is_file() for file in files)


def _home(cache: Path, repo: str) -> Path:
    """Where a cache keeps a model, by the layout that the library documents."""
    return cache / f"models--{repo.replace('/', '--')}"


def _commit(home: Path, revision: str | None) -> str:
    """The commit that a branch or tag was when it was fetched last; a revision that is none of these as it is."""
    try:
        return (home / "refs" / (revision or "main")).read_text().strip()
    except (OSError, ValueError):
        return revision or "main"


def _cached(cache: Path, repo: str, revision: str | None, listed: Mapping[str, list[str]]) -> tuple[Path | None, str]:
    """The folder as it was fetched now or before; or none, and what the cache lacks.

    The library is not asked: it finds no folder without a file of a known name, and takes a part for the whole.
    """
    home = _home(cache, repo)
    lacks = []
    for commit in dict.fromkeys([*listed, _commit(home, revision)]):
        folder = home / "snapshots" / commit
        lack = _lack(folder, listed.get(commit, ()))
        if not lack:
            return folder, ""
        lacks.append(lack)
    return None, lacks[0]


def _lack(folder: Path, files: Iterable[str]) -> str:
    """What a folder of the cache lacks, of these files and of the weights; nothing where it can serve."""
    try:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    except OSError:
        names = set()
    if not names:
        return "no such folder, not in the Hub's cache"
    weights = [name for name in names if _is_weights(name)]
    if not weights:
        return "the Hub's cache has no weights of it"
    lacks = sorted({*_lacking_shards(weights), *files} - names)
    more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
    return f"the Hub's cache has only a part of it (not {lacks[0]}{more})" if lacks else ""


def _lacking_shards(weights: Iterable[str]) -> set[str]:
    """The names of all shards that those of some shards tell of."""
    shards = filter(None, map(_SHARD.fullmatch, weights))
    sets = {(shard["stem"], int(shard["count"]), shard["ending"]) for shard in shards}
    return {
        f"{stem}-{number:05}-of-{count:05}{ending}" for stem, count, ending in sets for number in range(1, count + 1)
    }


def _is_weights(file: str) -> bool:
    return "/" not in file and (file.endswith(".safetensors") or any(fnmatch(file, pattern) for pattern in _PICKLES))


def _parts(repo: str, files: Iterable[str]) -> str:
    """Where below the top of a repository weights lie, and how to merge them; or nothing."""
    folders = sorted({file.partition("/")[0] for file in files if "/" in file and file.endswith(".safetensors")})
    if not folders:
        return ""
    fetched = f"`hf download {repo} --local-dir DIR`, then merge DIR/{folders[0]}"
    return f" It has some in {', '.join(folders[:5])}: {fetched}."


def _meant(reference: str) -> str:
    """What a reference that is no id most likely meant: an entry of its parent folder, or what an address names."""
    other, address = _OTHER.fullmatch(reference), _ADDRESS.fullmatch(reference)
    if other is not None:
        return f" It is a {other['kind']} of the Hub, which holds no model."
    if address is not None:
        revision = address["at"] or address["revision"]
        return f" Write {address['repo']}{f'@{revision}' if revision not in (None, 'main') else ''} for a Hub model."
    return sibling(reference)
