"""Defaults of transformers' processor classes, which their files may leave out.

transformers 4 wrote every field; transformers 5 leaves to the class what is the class's own, such as the offset of
ViViT's video processor.  Read from the sources of transformers 5.23 (`models/*/image_processing_*.py`,
`models/*/video_processing_*.py`) and, for names that end in FeatureExtractor, of 4.
"""

import math
from dataclasses import dataclass
from typing import Any

STANDARD = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = 2, 3  # PIL's numbers


def is_number(value: Any) -> bool:
    """Return True for a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_side(value: Any) -> bool:
    """Return True for a number of pixels: whole and at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Processor:
    """Defaults of a class, for what its file does not say.

    size: the shorter side, or with `square` both sides, whatever the shape of the video was.  crop: the sides of the
    centre crop, None for a class that does not crop.  short_over_crop: the shorter side is this times the crop, rounded
    down, whatever the file says of a size.  quantised: whether pixels are rounded after resizing.  offset: whether 1 is
    subtracted after rescaling; fixed: whatever the file says.
    """

    size: int = 224
    square: bool = False
    crop: int | None = 224
    mean: tuple[float, ...] = STANDARD
    std: tuple[float, ...] = STANDARD
    rescale_factor: float = 1 / 255
    resample: int = BILINEAR
    offset: bool = False
    fixed: bool = False
    quantised: bool = True
    short_over_crop: float | None = None

    def completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """A file's fields with the class's own for those that it leaves out."""
        side = {"height": self.size, "width": self.size} if self.square else {"shortest_edge": self.size}
        own: dict[str, Any] = {
            "size": side,
            "do_center_crop": self.crop is not None,
            "crop_size": None if self.crop is None else {"height": self.crop, "width": self.crop},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "rescale_factor": self.rescale_factor,
            "resample": self.resample,
            "offset": self.offset,
        }
        stated = {key: value for key, value in values.items() if value is not None}
        if is_side(stated.get("size")) and self.square:
            stated["size"] = {"height": stated["size"], "width": stated["size"]}
        if self.short_over_crop is not None:
            crop: Any = stated.get("crop_size", self.crop)
            height = crop.get("height") if isinstance(crop, dict) else crop
            if height is not None and is_side(height):  # anything else is refused as a crop
                stated["size"] = {"shortest_edge": int(height * self.short_over_crop)}
        return own | stated | ({"offset": self.offset} if self.fixed else {})


PROCESSORS = {
    "VivitImageProcessor": Processor(size=256, rescale_factor=1 / 127.5, offset=True),
    "VivitVideoProcessor": Processor(size=256, rescale_factor=1 / 127.5, offset=True, fixed=True),
    "VideoMAEImageProcessor": Processor(),
    "VideoMAEVideoProcessor": Processor(),
    "TimesformerVideoProcessor": Processor(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "ViTImageProcessor": Processor(square=True, crop=None),
    "DeiTImageProcessor": Processor(size=256, square=True, resample=BICUBIC),
    "BitImageProcessor": Processor(mean=CLIP_MEAN, std=CLIP_STD, resample=BICUBIC),
    "VJEPA2VideoProcessor": Processor(crop=256, mean=IMAGENET_MEAN, std=IMAGENET_STD, short_over_crop=256 / 224),
    "DINOv3ViTImageProcessor": Processor(square=True, crop=None, mean=IMAGENET_MEAN, std=IMAGENET_STD, quantised=False),
    "SiglipImageProcessor": Processor(square=True, crop=None, resample=BICUBIC),
}
"""By the name of the class, without the endings of its variants (Fast, Pil)."""

OF_MODELS = {
    "timesformer": ("VideoMAEImageProcessor", "TimesformerVideoProcessor"),
    "vivit": ("VivitImageProcessor", "VivitVideoProcessor"),
    "vit": ("ViTImageProcessor", "ViTImageProcessor"),
    "vit_mae": ("ViTImageProcessor", "ViTImageProcessor"),
    "videomae": ("VideoMAEImageProcessor", "VideoMAEVideoProcessor"),
    "vjepa2": ("VJEPA2VideoProcessor", "VJEPA2VideoProcessor"),
    "dinov2": ("BitImageProcessor", "BitImageProcessor"),
    "dinov2_with_registers": ("BitImageProcessor", "BitImageProcessor"),
    "dinov3_vit": ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessor"),
    "siglip": ("SiglipImageProcessor", "SiglipImageProcessor"),
    "siglip_vision_model": ("SiglipImageProcessor", "SiglipImageProcessor"),
}
"""The classes that transformers takes for a `model_type` where the file names none: for images, and for videos."""


def class_name(values: dict[str, Any], model_type: str | None, video: bool) -> str | None:
    """The class that a processor's file is for; None where neither it nor the kind of model says."""
    named = next(
        (
            values[key]
            for key in ("video_processor_type", "image_processor_type", "feature_extractor_type")
            if key in values
        ),
        None,
    )
    if named is None:
        return OF_MODELS[model_type][video] if model_type in OF_MODELS else None
    name = str(named).removesuffix("Fast").removesuffix("Pil")
    return name.replace("FeatureExtractor", "ImageProcessor")
