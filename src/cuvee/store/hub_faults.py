"""What went wrong between here and the Hub, in one line with the way on. Needs huggingface-hub, of any version."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import HfApi, constants

try:
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError:  # before 0.25
    from huggingface_hub.utils import (  # type: ignore[attr-defined, no-redef, assignment, unused-ignore]
        FileMetadataError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

__all__ = ["HFValidationError", "RevisionNotFoundError", "reason_of"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reason_of(error: Exception, repo: str, *, begun: bool) -> str:
    """Why a model did not come, and the way on: the end of a sentence, without its stop.

    begun: the Hub said which files there are, and it broke off after that.
    """
    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what the library says of its cache is said better here
    answer: Any = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    told = next(iter(str(error).strip().splitlines()), "no answer").rstrip(".:")
    named = f"{type(error).__name__}: {told}"
    if isinstance(error, GatedRepoError):
        return (
            "the Hub asks for permission: accept its terms on the model's page there, then log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"no such model on the Hub (or it is private: `hf auth login`){_other_kind(repo)}"
    if status == 401:
        return "the Hub does not know the token: log in anew with `hf auth login`, or correct HF_TOKEN"
    if status == 429:
        return f"the Hub takes no more requests for now (429): try again {_later(answer.headers)}, or log in for more"
    if status is not None and status >= 500:
        return f"the Hub has a fault of its own ({status}): try again later"
    if status is not None:
        return f"the Hub refuses it ({told})"
    if isinstance(error, OSError) and error.errno in _FULL:
        return "the disk of the Hub's cache is full: make room, or set HF_HUB_CACHE to a folder elsewhere"
    if isinstance(error, OSError) and error.filename and not isinstance(error, LocalEntryNotFoundError):
        return f"the Hub's cache cannot be written ({error.strerror}: {error.filename}): HF_HUB_CACHE sets another"
    if isinstance(error, (FileMetadataError, ValueError, TypeError, KeyError, AttributeError, AssertionError)):
        named = named.partition(". ")[0]
        return f"what answers is not the Hub ({named}): check HF_ENDPOINT, and whether a proxy asks for a log-in"
    if begun:
        return f"the download broke off ({named}): the same command fetches what is missing"
    return f"the Hub cannot be reached ({named})"


def _later(headers: Mapping[str, str]) -> str:
    """When to ask again, by the answer's headers `Retry-After` or `RateLimit`."""
    after = re.fullmatch(r"\s*(\d+)\s*", headers.get("retry-after") or "")
    after = after or re.search(r"\bt=(\d+)", headers.get("ratelimit") or "")
    return f"in {after[1]} s" if after else "later"


def _other_kind(repo: str) -> str:
    """What else the Hub has under an id: `; it has a dataset of that name`, or nothing."""
    api, wait = HfApi(), float(constants.HF_HUB_ETAG_TIMEOUT)
    for kind, ask in (("dataset", api.dataset_info), ("space", api.space_info)) if "/" in repo else ():
        try:
            ask(repo, timeout=wait)
        except Exception:  # only a hint
            continue
        return f"; it has a {kind} of that name"
    return ""
