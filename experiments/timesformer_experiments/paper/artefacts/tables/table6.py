"""Table 6 of the paper: published accuracies on K600; size and cost of our models are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table6", "Table 6: K600, against other models", ("k600",))
ARTEFACT = LISTED.artefact()
