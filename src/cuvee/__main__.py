"""`python -m cuvee` is the command line."""

from cuvee.cli.app import main

main()
