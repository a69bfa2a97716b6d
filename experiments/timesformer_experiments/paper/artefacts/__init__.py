"""One file a table or figure, found by being in a folder here."""
