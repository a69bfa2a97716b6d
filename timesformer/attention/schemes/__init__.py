"""Schemes, one short file each.  Every file defines `SCHEMES`, and the registry finds it without a list."""
