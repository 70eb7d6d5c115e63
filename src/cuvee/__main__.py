"""`cuvee`, and `python -m cuvee`: the command line, which takes no modules from the folder that it is started in."""

import os
import sys

import cuvee


def main() -> None:
    """Run the command line."""
    _leave_working_folder()
    from cuvee.cli.app import main as run

    run()


def _leave_working_folder() -> None:
    """Drop the working directory from where modules are looked for: a folder of models may hold a `torch.py`.

    `python -m` puts it first, and an empty entry of PYTHONPATH stands for it. It stays where cuvee itself is in it, or
    PYTHONPATH names it.
    """
    try:
        here = os.path.realpath(os.curdir)
    except FileNotFoundError:  # it was removed
        return
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    wanted = (*filter(None, entries), cuvee.__path__[0] + os.sep + os.pardir)
    if here in map(os.path.realpath, wanted):
        return
    doubtful = sys.path if len(entries) > 1 and "" in entries else sys.path[:1]
    sys.path[:] = [entry for entry in sys.path if entry not in doubtful or os.path.realpath(entry) != here]


if __name__ == "__main__":
    main()
