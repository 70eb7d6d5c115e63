"""Kinds of tasks that files describe: one file each, of the kind's name. The folder is the list."""
