"""Readers and writers of other libraries' formats."""
