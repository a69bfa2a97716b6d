"""Table 7 of the paper: accuracies on SSv2 and Diving-48 as published; our models' size and cost are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table7", "Table 7: SSv2 and Diving-48, against other models", ("ssv2", "diving48"))
ARTEFACT = LISTED.artefact()
