"""The paper's claims as they are registered in `claims.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.equivalence import ALPHA, MARGIN_POINTS
from timesformer_experiments.analysis.statistics.looks import LOOKS
from timesformer_experiments.specs.paper_claims import Registered, read_claims

CLAIMS = Path(__file__).with_name("claims.yaml")


@cache
def registered() -> Registered:
    """Return the claims and the sha256 of their file.

    Raises InputError that names the field that is wrong, or that the statistics were not made for.
    """
    found = read_claims(CLAIMS)
    made_for = {"margin": MARGIN_POINTS, "most_seeds": LOOKS[-1].seeds}
    if found.claims.level != ALPHA:
        raise InputError(f"{CLAIMS}: level: expected {ALPHA:g}, got {found.claims.level:g}")
    for claim in found.claims.claims:
        for field, expected in made_for.items():
            if getattr(claim, field) != expected:
                raise InputError(f"{CLAIMS}: {claim.name}: {field}: expected {expected:g}, as for all claims")
    return found
