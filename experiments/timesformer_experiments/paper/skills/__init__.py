"""What each scheme can and cannot see: registered predictions, their runs, and what the runs showed."""
