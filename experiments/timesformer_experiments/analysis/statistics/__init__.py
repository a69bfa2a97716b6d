"""Statistics of claims: estimators, sequential looks, equivalence, bands of searches, and their simulation."""
