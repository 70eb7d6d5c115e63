"""Steps on a finished merge: they ask for `update`, the change that the merge made in the base."""
