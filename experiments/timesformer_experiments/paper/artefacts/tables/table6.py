"""Table 6 of the paper: accuracies on K600 as published; our models' size and cost are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table6", "Table 6: K600, against other models", ("k600",))
ARTEFACT = LISTED.artefact()
