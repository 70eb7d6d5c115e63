"""The lm zoo: a small causal language model, branched into one expert for each language or kind of text."""
