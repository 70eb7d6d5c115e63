"""Merges of LoRA adapters that need no base model: each module's low-rank updates become one update."""
