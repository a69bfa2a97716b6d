"""Sentences on the licence of weights, said when they are loaded."""

from typing import Any

_AUTHORS = {
    "Hugging Face VideoMAE": "VideoMAE",
    "Hugging Face ViT-MAE": "MAE",
    "Hugging Face V-JEPA 2": "V-JEPA 2",
    "Hugging Face DINOv2": "DINOv2",
    "Hugging Face DINOv3": "DINOv3",
    "Hugging Face SigLIP": "SigLIP",
    "Hugging Face ViViT": "ViViT",
}
"""Whose weights a format holds; TimeSformer's where it is not named and their use is limited."""
_MORE = {
    "Hugging Face ViT-MAE": "; the copies on the hub say Apache-2.0",
    "Hugging Face DINOv3": ", to be accepted before the download",
}


def is_limited(licence: str) -> bool:
    """True for a licence that does not allow every use."""
    return "NC" in licence or licence.startswith("DINOv3")


def notice_of(licence: str, provenance: dict[str, Any]) -> str:
    """Return what the licence of published weights means for these, in one sentence."""
    kind = provenance.get("format", "")
    name = _AUTHORS.get(kind, "TimeSformer" if is_limited(licence) else "")
    whose = f"the {name} weights that its authors released" if name else "the published weights of this kind"
    limit = ": no commercial use, of weights derived from them neither" if "NC" in licence else ""
    return f"{whose} are licensed {licence}{limit}{_MORE.get(kind, '')}"
