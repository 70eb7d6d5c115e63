"""Cuvée blends neural networks: any merge method, one recipe, at the speed of the disk, in bounded memory."""

from __future__ import annotations

__version__ = "0.1.0"
