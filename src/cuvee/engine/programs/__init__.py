"""Compiled tiles: the arithmetic of an output tensor as programs for this processor, made ahead of time.

A *bundle* holds the programs of all outputs of one structure: one that writes a tile, and one for each pass of a fold.
It is found again by what its programs depend on, and lives in the user's cache.
"""
