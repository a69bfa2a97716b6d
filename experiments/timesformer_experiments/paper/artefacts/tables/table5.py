"""Table 5 of the paper: published accuracies on K400; size and cost of our models are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table5", "Table 5: K400, against other models", ("k400",))
ARTEFACT = LISTED.artefact()
