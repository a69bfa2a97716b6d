"""jaxtyping's names, or plain stand-ins where it is not installed: the model itself needs torch and einops alone."""

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ImportError:
    from torch import Tensor

    class _Plain:
        """`Float[Tensor, "b d"]` means just `Tensor`."""

        def __class_getitem__(cls, item: object) -> type[Tensor]:
            return Tensor

    Bool = Float = Int = UInt8 = _Plain  # type: ignore[assignment]

__all__ = ["Bool", "Float", "Int", "UInt8"]
