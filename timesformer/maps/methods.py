"""Every method that explains what a model predicts from a clip, by name."""

from collections.abc import Callable

from torch import Tensor

from timesformer.maps.attention import attention_maps
from timesformer.maps.capture import sites
from timesformer.maps.gradients import Target, grad_cam, input_gradient, relevance
from timesformer.maps.rollout import rollout
from timesformer.maps.walk import Saliency
from timesformer.models.timesformer import TimeSformer

Method = Callable[[TimeSformer, Tensor, Target], Saliency]
"""A model, clips and the class to be explained (None: the predicted one) to a map over the patches of each clip."""


def last_attention(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """The class token's map, mean over heads, in the last step that takes it in and still sees patches; without a class
    token the mean over the patches' rows.  The target plays no part."""
    every = [site for site in sites(model) if site.encoder == 0]
    seeing = [site for site in every if site.step.cls != "absent"] or every
    (one,) = attention_maps(model, clip, layers=[seeing[-1].layer], steps=[seeing[-1].step.name])
    return Saliency("last attention", ("class",), one.weights.mean(1), one.on_class.mean(1))


def plain_rollout(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Rollout of what the head reads; the target plays no part."""
    return rollout(model, clip)


def norm_rollout(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Rollout weighted by the norms of what each step adds; the target plays no part."""
    return rollout(model, clip, weighting="norm")


METHODS: dict[str, Method] = {
    "attention": last_attention,
    "rollout": plain_rollout,
    "rollout_norm": norm_rollout,
    "relevance": relevance,
    "input_gradient": input_gradient,
    "grad_cam": grad_cam,
}
