"""How models are scored: tasks, metrics, and models and data to score on."""
