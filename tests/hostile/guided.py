"""Inputs that coverage finds, by atheris: `python -m tests.hostile.guided header --seconds 60`.

One file of a kind's sound input has its bytes changed, by what makes new lines of cuvee run; what is right is as in
`kinds/`. Ends with 1 at the first input that does harm, and keeps it as `crash-*`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cuvee"]):
    import cuvee.api
    import cuvee.store.open  # noqa: F401

from cuvee import CuveeError
from cuvee.store.manifest import CHECK
from tests.hostile import cases

FILES = {
    "header": "model.safetensors",
    "recipe": "recipe.yaml",
    "pack": "packed-low_rank/pack.json",
    "journal": "out/.cuvee/journal.jsonl",
}
DRAWN = 50
"""Spoilt inputs that the first ones are."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.guided", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=FILES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    here, root = Path.cwd(), Path(tempfile.mkdtemp(prefix="guided-"))
    cases.prepare(given.kind, root)
    file = root / "case" / FILES[given.kind]
    corpus = root / "corpus"
    corpus.mkdir()
    for seed in range(DRAWN):
        _restore(root)
        cases.kind_of(given.kind).spoil(random.Random(seed))
        if file.is_file() and not file.is_symlink():
            (corpus / str(seed)).write_bytes(_unsigned(file.read_bytes()))

    def use(data: bytes) -> None:
        _restore(root)
        file.write_bytes(data)
        try:
            cases.kind_of(given.kind).use()
        except CuveeError:
            return

    options = ["-max_len=65536", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={here}/"]
    limits = [f"-max_total_time={given.seconds}", f"-seed={given.seed + 1}"]
    atheris.Setup([sys.argv[0], *options, *limits, str(corpus)], use)
    atheris.Fuzz()


def _unsigned(data: bytes) -> bytes:
    """A file of ours without its digest, behind which no change would be seen."""
    try:
        told = json.loads(data)
        return json.dumps({key: value for key, value in told.items() if key != CHECK}).encode()
    except (ValueError, AttributeError, RecursionError):
        return data


def _restore(root: Path) -> None:
    shutil.rmtree(root / "case")
    shutil.copytree(root / "sound", root / "case", symlinks=True)
    os.chdir(root / "case")


if __name__ == "__main__":
    main()
