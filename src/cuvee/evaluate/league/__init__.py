"""The league: all methods that fit a zoo, each with the numbers that did best on validation, scored once on test."""
