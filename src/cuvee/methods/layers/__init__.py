"""Methods that take parts of a network from one model or another, by the tensor's name."""
