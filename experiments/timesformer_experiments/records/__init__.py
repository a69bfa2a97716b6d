"""Records of runs: the log, reading it, data frames."""
