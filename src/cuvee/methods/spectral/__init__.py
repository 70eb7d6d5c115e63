"""Methods that reckon with the singular values and vectors of what each model changed in a matrix."""
