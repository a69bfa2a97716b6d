"""Gallery: attention maps, rollout and the explorer on real videos with real weights (`reproduce gallery`)."""
