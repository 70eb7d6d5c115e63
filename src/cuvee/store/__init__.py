"""File formats: readers, views and the preallocating writer; and what names and shapes tell of a network."""
