"""How people call us: one executable, one file for each group of commands."""
