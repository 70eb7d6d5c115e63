"""Where work runs: tiles, workers, journal, memory; and the lazy checkpoint of a merge."""
