"""Many runs: in order, in worker processes or on a cluster, carrying on after interruptions."""
