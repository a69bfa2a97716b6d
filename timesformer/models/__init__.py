"""Networks: the video transformer and convolutional baselines."""
