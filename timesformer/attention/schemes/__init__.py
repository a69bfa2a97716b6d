"""One short file a scheme; each defines `SCHEMES`.  The registry finds them by themselves."""
