"""How results look: the model card and reports."""
