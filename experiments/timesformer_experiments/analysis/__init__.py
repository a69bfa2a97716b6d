"""Judgements of folders of runs: comparisons, summaries, differences."""
