"""Python processes that run a module of ours, and no file that merely lies where this program runs.

`python -m MODULE` looks for modules in the working directory before anywhere else, and `python FILE` in FILE's folder:
a `torch.py` beside a model would be run in place of torch. So each process starts with `BOOTSTRAP`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

BOOTSTRAP = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "import json; given = json.loads(sys.argv[1]); "
    "sys.path[:] = [*given, *(entry for entry in sys.path if entry not in given)]; "
    "from cuvee.engine.child import serve; serve(*sys.argv[2:])"
)
"""Before its first import it drops the entry '', which stands for the working directory; then it takes over the
folders that `trusted` gives."""

Beside = dict[str, tuple[str | None, list[str] | None]]
"""Name of a module -> its file, and the folders of its submodules where it is a package."""


def start(
    module: str,
    *arguments: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """A process that calls `main(*arguments)` of a module of ours.

    options: Python's own. environment: what is set in it beside what is set here. streams: as `Popen` takes them.
    """
    paths = trusted()
    command = [sys.executable, *_isolation(), *options, "-c", BOOTSTRAP, json.dumps(paths), json.dumps(beside(paths))]
    variables = {**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(_named())}
    variables["PYTHONSAFEPATH"] = "1"  # for the children that it may have
    return subprocess.Popen([*command, module, *arguments], env=variables, **streams)


def serve(beside: str, module: str, *arguments: str) -> None:
    """What `BOOTSTRAP` ends in."""
    sys.meta_path.append(_Beside(json.loads(beside)))
    import_module(module).main(*arguments)


def trusted() -> list[str]:
    """The folders that this process takes modules from, without those that it has only because of where it runs.

    Such are the working directory and the script's folder, unless cuvee itself is there or PYTHONPATH names them.
    """
    home = Path(sys.modules["cuvee"].__path__[0]).parent
    left = _where_it_runs() - {home.resolve(), *(Path(entry).resolve() for entry in _named())}
    entries = [Path(entry).absolute() for entry in sys.path if isinstance(entry, str) and entry]
    return [str(entry) for entry in dict.fromkeys(entries) if entry.resolve() not in left]


def _named() -> list[str]:
    """The entries of PYTHONPATH; an empty one would stand for the working directory."""
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _where_it_runs() -> set[Path]:
    script = getattr(sys.modules["__main__"], "__file__", None)
    found = {Path(script).parent.resolve()} if script else set()
    with suppress(FileNotFoundError):  # it was removed
        found.add(Path.cwd().resolve())
    return found


def beside(paths: Sequence[str]) -> Beside:
    """The modules that this program has imported from where it runs: its own code, which methods may come from."""
    folders = {str(folder) for folder in _where_it_runs() - {Path(path).resolve() for path in paths}}
    real = cache(os.path.realpath)  # of hundreds of modules in a few folders
    found: Beside = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if "." in name or not isinstance(module, ModuleType) or not isinstance(spec, ModuleSpec):
            continue
        inner = [os.fspath(each) for each in spec.submodule_search_locations or []]
        file = spec.origin if spec.has_location else None
        folder, _, _ = (inner[0] if inner else file or "").rpartition(os.sep)
        if folder and real(folder) in folders:
            found[name] = file, inner or None
    return found


class _Beside(MetaPathFinder):
    """Finds the modules of a `Beside`, where nothing else has found them."""

    def __init__(self, places: Beside) -> None:
        self._places = places

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        file, inner = self._places.get(name, (None, None))
        if file is not None:
            return spec_from_file_location(name, file, submodule_search_locations=inner)
        if inner is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = inner
        return spec


def _isolation() -> list[str]:
    """Options of this interpreter that keep code away."""
    flags = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return [option for option, given in flags.items() if given]
