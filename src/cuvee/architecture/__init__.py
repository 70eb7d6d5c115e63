"""What a tensor is in its network: layers, roles, ties, wrappers, buffers, codes; of any model, from names, shapes,
bytes and config."""
