"""Table 5 of the paper: accuracies on K400 as published; our models' size and cost are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table5", "Table 5: K400, against other models", ("k400",))
ARTEFACT = LISTED.artefact()
