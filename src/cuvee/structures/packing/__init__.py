"""Packing: what several fine-tunes changed in one base, compressed into a folder (`store.packs` reads it)."""

from cuvee.structures.packing.inputs import names_of
from cuvee.structures.packing.sizes import Size, sizes
from cuvee.structures.packing.unpacked import is_adapter, write_adapter
from cuvee.structures.packing.write import pack

__all__ = ["Size", "is_adapter", "names_of", "pack", "sizes", "write_adapter"]
