"""From an image file to the tensor that a model expects: read, resize, crop, normalise.

Pillow and numpy only; Pillow is imported on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INCEPTION_MEAN = (0.5, 0.5, 0.5)
INCEPTION_STD = (0.5, 0.5, 0.5)

MAX_ASPECT_RATIO = 100
"""Beyond this aspect ratio the resized picture would take gigabytes, and the crop would keep 1 % of it."""

# Older Pillow reads 16-bit greyscale PNGs in mode 'I'; the big-endian modes come from TIFF and PGM.
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform of a model: resize, centre crop, scale to [0, 1], normalise.

    The shorter side is resized to ``floor(size / crop_fraction)`` pixels and the longer one in
    proportion (rounded down), then the centre ``size`` x ``size`` is cut out: the arithmetic of
    timm's and torchvision's evaluation transforms, which agree to the last bit on the same picture.

    Args:
        mean: of the red, green and blue channels, after scaling to [0, 1].
        std: standard deviation of the same.
        size: side of the square crop in pixels.
        crop_fraction: share of the resized shorter side that the crop keeps, in (0, 1].
        interpolation: ``"bicubic"`` or ``"bilinear"``, both antialiased.

    Raises:
        ValueError: a value outside the ranges above.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224
    crop_fraction: float = 0.875
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)  # JSON has lists; they become tuples
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} must be three finite numbers (RGB), got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(
                f"size must be a whole number of pixels, at least 1, got {self.size!r}"
            )
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1], got {self.crop_fraction}")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(
                f"interpolation must be 'bicubic' or 'bilinear', got {self.interpolation!r}"
            )

    @property
    def resized(self) -> int:
        """Length of the shorter side before the crop, in pixels."""
        # The small term undoes the rounding of a crop_fraction that was computed as a ratio, such as 240 / 255.
        return math.floor(self.size / self.crop_fraction + 1e-6)

    def __call__(self, image: Image.Image | str | os.PathLike[str] | BinaryIO) -> Tensor:
        """Transform one picture.

        Args:
            image: a file (read by :func:`read_image`) or a Pillow image of any mode that
                :func:`read_image` accepts. EXIF orientation is applied to files, not to Pillow images.

        Returns:
            (3, size, size) float32, contiguous.

        Raises:
            ValueError: the image cannot be read, or its aspect ratio is beyond 1:100.
            ImportError: Pillow is not installed.
        """
        _require_pillow()
        from PIL import Image

        picture = _to_rgb(image) if isinstance(image, Image.Image) else read_image(image)
        width, height = picture.size
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise ValueError(
                f"the picture is {width} x {height} pixels, narrower than 1:{MAX_ASPECT_RATIO}: "
                f"crop it to the part to classify"
            )
        short = self.resized
        long = int(short * max(width, height) / min(width, height))
        new_size = (short, long) if width <= height else (long, short)
        if new_size != picture.size:
            filters = {
                "bicubic": Image.Resampling.BICUBIC,
                "bilinear": Image.Resampling.BILINEAR,
            }
            picture = picture.resize(new_size, filters[self.interpolation])
        left = round((picture.width - self.size) / 2)
        top = round((picture.height - self.size) / 2)
        picture = picture.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return ((pixels - mean[:, None, None]) / std[:, None, None]).contiguous()


def pixel_norm(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """``mean`` and ``std`` for pixel values from 0 to 255: float32 vectors, not to be changed."""
    mean, std = (
        tuple(255.0 * value for value in values)
        for values in (preprocessing.mean, preprocessing.std)
    )
    if torch.compiler.is_compiling():
        # Filled on the device: a copy from the host would keep the compiler from using CUDA graphs.
        return _filled(mean, device), _filled(std, device)
    if torch._C._len_torch_dispatch_stack():  # a mode may make fake tensors: not to be cached
        return _vectors(mean, std, device)
    return _kept_vectors(mean, std, device)


def _filled(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.cat([torch.full((1,), v, dtype=torch.float32, device=device) for v in values])


def _vectors(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # inference tensors cannot be saved for a backward pass
        made = [torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std)]
    return made[0], made[1]


# Kept outside of the models, which would save, copy and move them. Never freed: captured CUDA graphs read them.
_kept_vectors = functools.cache(_vectors)


def read_image(path: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """Read a picture file as RGB, upright.

    - EXIF orientation is applied; an unreadable EXIF block is ignored.
    - Transparency (RGBA, LA, palette or a transparent colour) is composited over white, as viewers do.
      Dropping alpha instead would show the hidden colour of transparent pixels.
    - CMYK, YCbCr, Lab, palette, greyscale and 1-bit pictures are converted by Pillow.
    - 16-bit greyscale is scaled by 255 / 65535 and rounded, not clipped. Files state no range for 32-bit
      integers and floats: integers are read as 16-bit if all of them fit, everything else is refused.
    - Animations and files of several pages: the first picture is read.

    Args:
        path: a file in any format that Pillow reads; or a binary file object, read from its position to its end.

    Returns:
        A Pillow image of mode RGB, its pixels loaded.

    Raises:
        ValueError: the file is missing, empty, truncated, corrupt, not a picture, a folder, or so large
            that Pillow suspects a decompression bomb. The message is one line that names the file.
        ImportError: Pillow is not installed.
    """
    _require_pillow()
    from PIL import Image, ImageOps

    source: str | io.BytesIO
    if isinstance(path, (str, os.PathLike)):
        name = source = os.fspath(path)
    else:
        # Pillow seeks within a file, which a pipe does not allow.
        name, source = str(getattr(path, "name", "stream")), io.BytesIO(path.read())
    with _errors_name(name):
        if isinstance(source, io.BytesIO) and not source.getbuffer():
            raise ValueError("it is empty")
        with Image.open(source) as opened:
            opened.load()
            try:
                upright = ImageOps.exif_transpose(opened)
            except Exception:  # Pillow's EXIF parser may raise anything
                upright = opened.copy()
        return _to_rgb(upright)


@contextmanager
def _errors_name(name: str) -> Iterator[None]:
    """Turn any exception from Pillow into a ValueError of one line that names the file."""
    from PIL import Image, UnidentifiedImageError

    def refuse(reason: str) -> ValueError:
        return ValueError(f"cannot read picture {name!r}: {' '.join(reason.split())}")

    try:
        if os.path.isdir(name):
            raise refuse("it is a folder")
        if os.path.isfile(name) and os.path.getsize(name) == 0:
            raise refuse("the file is empty")
        yield
    except FileNotFoundError:
        raise refuse("no such file") from None
    except PermissionError:
        raise refuse("permission denied") from None
    except UnidentifiedImageError:
        raise refuse("not a picture in a format that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise refuse(f"too large ({error})") from None
    except ValueError as error:
        if str(error).startswith("cannot read picture"):
            raise
        raise refuse(str(error) or "corrupt") from None
    except Exception as error:  # decoders may raise anything on corrupt data
        raise refuse(f"truncated or corrupt ({error or type(error).__name__})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB; see :func:`read_image` for the rules."""
    from PIL import Image

    if image.width < 1 or image.height < 1:
        raise ValueError(f"the picture has no pixels ({image.width} x {image.height})")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT_MODES or image.mode == "I":
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode == "F":
        raise ValueError(
            "floating-point pixels have no known range: convert the picture to 8 or 16 bits"
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """16-bit greyscale integers, (H, W), scaled to 8 bits."""
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(
            f"32-bit pixels from {pixels.min()} to {pixels.max()} have no known range: convert "
            f"the picture to 8 or 16 bits"
        )
    return ((pixels + 128) // 257).astype(np.uint8)  # round(p * 255 / 65535), exactly


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(
            'reading pictures needs Pillow, which is not installed: pip install "effkernels[cli]"'
        ) from None
