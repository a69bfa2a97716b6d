"""Analysis of folders of runs: summaries, comparisons, differences and statistics of claims."""
