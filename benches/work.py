"""One merge in a process that has everything imported: `python -m benches.work RECIPE OUT WORKERS MEMORY` prints the
seconds from the end of imports to the manifest, and page faults."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from cuvee.engine.launch import start_ahead
from cuvee.engine.processor import numpy_settings


def main() -> None:
    recipe, out, workers, memory = sys.argv[1:]
    os.environ.update(numpy_settings())
    start_ahead(int(workers))
    from cuvee import api

    time.sleep(2)  # the worker processes import torch, too
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    began = time.monotonic()
    api.merge(recipe, out, workers=int(workers), memory=memory)
    seconds = time.monotonic() - began
    found = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(json.dumps({"seconds": seconds, "faults": found}))


if __name__ == "__main__":
    main()
