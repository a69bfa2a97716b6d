"""Table 7 of the paper: published accuracies on SSv2 and Diving-48; size and cost of our models are counted."""

from timesformer_experiments.paper.listed import Listed

LISTED = Listed("table7", "Table 7: SSv2 and Diving-48, against other models", ("ssv2", "diving48"))
ARTEFACT = LISTED.artefact()
