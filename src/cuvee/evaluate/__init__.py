"""How models are scored: tasks, the store of predictions, metrics with intervals, and zoos to score on."""
