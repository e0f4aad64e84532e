"""What is done to an image before it enters the network."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from sklearn_dl._images import (
    FILTERS,
    LUMA,
    check_preprocessing,
    part_seen,
    resize_part,
    resized_size,
    strip_part,
)

Size = tuple[int, int]

# How all of an image is shown, in place of a crop.
RESIZES = ("pad", "squash")


def check_image_size(image_size: Any) -> Size:
    """Return `image_size` (a side or (height, width)) as (height, width)."""
    pair = image_size if isinstance(image_size, tuple | list) else (image_size,) * 2
    if len(pair) != 2 or not all(
        isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0
        for side in pair
    ):
        raise ValueError(
            f"image_size must be a positive int or (height, width), got {image_size!r}."
        )
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of the images of a network.

    It equals torchvision's ``ImageClassification`` preset, in two steps: `geometry` for
    each image, `normalize` for a batch, on any device.

    Parameters
    ----------
    resize_size : int, (int, int) or None
        The shorter side after resizing; or (height, width); or no resizing.
    crop_size : (int, int) or None
        Height and width of the centre crop; None for no crop.
    mean, std : tuple of float
        Mean and standard deviation of each channel, of values in [0, 1].
    interpolation : str, default="bilinear"
        A value of torchvision's ``InterpolationMode``.
    antialias : bool, default=True
        Whether resizing filters what the smaller image can't show.
    rgb : bool, default=True
        Whether the first three channels are red, green and blue: changes of colour are
        for those alone.
    resize_side : {"shorter", "longer"}, default="shorter"
        Which side becomes `resize_size`, where that is one number. With the longer one
        the crop shows all of an image, and black beside it.

    Attributes
    ----------
    n_channels : int
        How many channels images have: as many as there are means.

    Notes
    -----
    Of an image so long that the crop shows less than a tenth of it along an axis, only
    that part is resized, always by Pillow: its pixels differ from the preset's by
    rounding alone (bytes by one level of 255, rarely two).

    Examples
    --------
    >>> from torchvision.models import ResNet18_Weights
    >>> from sklearn_dl.backbones import Preprocessing
    >>> preset = ResNet18_Weights.DEFAULT.transforms()
    >>> preprocessing = Preprocessing.from_transforms(preset)
    >>> preprocessing.resize_size, preprocessing.crop_size
    (256, (224, 224))
    >>> preprocessing.replace_image_size(64).resize_size
    73
    """

    resize_size: int | Size | None
    crop_size: Size | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    antialias: bool = True
    rgb: bool = True
    resize_side: str = "shorter"

    def __post_init__(self):
        check_preprocessing(vars(self))

    @classmethod
    def from_transforms(cls, preset: ImageClassification) -> "Preprocessing":
        """Take the numbers of a torchvision preset (``weights.transforms()``)."""
        resize, crop = preset.resize_size, preset.crop_size
        return cls(
            resize_size=resize[0] if len(resize) == 1 else tuple(resize),
            crop_size=(crop[0], crop[-1]),
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            interpolation=preset.interpolation.value,
            antialias=bool(preset.antialias),
        )

    @property
    def n_channels(self) -> int:
        """How many channels images have."""
        return len(self.mean)

    @property
    def output_size(self) -> Size | None:
        """Height and width of what `geometry` returns; None when it varies."""
        if self.crop_size is not None:
            return self.crop_size
        return self.resize_size if isinstance(self.resize_size, tuple) else None

    def resizes(self, height: int, width: int) -> bool:
        """Tell whether an image of this size would be resized."""
        return self.resized_size(height, width) != (height, width)

    def resized_size(self, height: int, width: int) -> Size:
        """Return the (height, width) that an image of this size is resized to."""
        longer = self.resize_side == "longer"
        return resized_size(self.resize_size, longer, height, width)

    def part_seen(self, height: int, width: int) -> float:
        """Return the part of an image of this size that the crop shows, 0 to 1."""
        return part_seen(self.resized_size(height, width), self.crop_size)

    @property
    def resizes_tensors(self) -> bool:
        """Whether `geometry` takes batches of tensors that have to be resized."""
        return self.interpolation in ("nearest", "bilinear", "bicubic")

    def geometry(self, image):
        """Resize and crop one image.

        Parameters
        ----------
        image : PIL.Image or Tensor of shape (..., n_channels or 1, H, W)
            A tensor holds uint8 in 0-255 or floats in [0, 1].

        Returns
        -------
        PIL.Image or Tensor
            The kind and dtype that came in.
        """
        if self.resize_size is not None:
            width, height = F.get_image_size(image)
            resized = self.resized_size(height, width)
            part = strip_part((height, width), resized, self.crop_size)
            if part is not None:
                image = resize_strip(image, *part, self.interpolation)
            else:
                resize = partial(
                    F.resize,
                    size=list(resized),
                    interpolation=InterpolationMode(self.interpolation),
                    antialias=self.antialias,
                )
                image = _by_band(resize, image) if _is_bands(image) else resize(image)
        if self.crop_size is not None:
            image = F.center_crop(image, list(self.crop_size))
        return image

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale to [0, 1] if need be, subtract the mean, divide by the deviation.

        Parameters
        ----------
        batch : Tensor of shape (n, n_channels or 1, H, W)
            uint8 in 0-255, or floats in [0, 1]. Grey images serve for RGB ones, and the
            other way round.

        Returns
        -------
        Tensor of shape (n, n_channels, H, W)
            In channels_last format, on the batch's device; float32 for uint8, else of
            the batch's dtype.
        """
        c = self.n_channels
        known = {1: (1, 3), 3: (1, 3)}.get(c, (c,))
        if batch.ndim != 4 or batch.shape[1] not in known:
            wanted = " or ".join(map(str, known))
            raise ValueError(
                f"Expected images (n, {wanted}, H, W), got shape {tuple(batch.shape)}."
            )
        if batch.dtype != torch.uint8 and not batch.is_floating_point():
            raise ValueError(f"Expected uint8 or float images, got {batch.dtype}.")
        scaled = batch.dtype == torch.uint8
        dtype = torch.float32 if scaled else batch.dtype
        if batch.shape[1] > c:
            luma = torch.tensor(LUMA, device=batch.device)[:, None, None]
            batch = (batch * luma).sum(1, keepdim=True)
        n, _, height, width = batch.shape
        values = torch.empty((n, height, width, c), dtype=dtype, device=batch.device)
        values.copy_(batch.permute(0, 2, 3, 1))  # one channel broadcasts to three
        if scaled:
            values.div_(255)
        # Whole lines: over few channels the CPU's loops would be ten times slower.
        mean = _line(self.mean, width, dtype, batch.device)
        std = _line(self.std, width, dtype, batch.device)
        values.flatten(2).sub_(mean).div_(std)
        return values.permute(0, 3, 1, 2)

    def replace_image_size(self, image_size: int | Size) -> "Preprocessing":
        """Return the same for images of another size.

        Parameters
        ----------
        image_size : int or (int, int)
            A side: the centre square of the image, with the old ratio of resize to
            crop. (height, width): the whole image is resized to it, without a crop.
        """
        height, width = check_image_size(image_size)
        if self.resize_side == "longer":
            size = (height, width)
            return replace(self, resize_size=min(size), crop_size=size)
        if isinstance(image_size, tuple | list):
            return replace(self, resize_size=(height, width), crop_size=None)
        ratio = 1.0
        if isinstance(self.resize_size, int) and self.crop_size is not None:
            ratio = self.resize_size / min(self.crop_size)
        resize = round(height * ratio)
        return replace(self, resize_size=resize, crop_size=(height, height))

    def replace_resize(self, resize: str) -> "Preprocessing":
        """Return the same that shows all of each image, at the same size.

        Parameters
        ----------
        resize : {"pad", "squash"}
            "pad" keeps the proportions and puts black beside the image; "squash" gives
            them up.
        """
        size = self.output_size
        if resize not in RESIZES or size is None:
            raise ValueError(
                f"resize must be one of {RESIZES} for a preprocessing with a size, got "
                f"{resize!r}."
            )
        if resize == "squash":
            return replace(
                self, resize_size=size, crop_size=None, resize_side="shorter"
            )
        return replace(
            self, resize_size=min(size), crop_size=size, resize_side="longer"
        )

    def replace_normalization(self, mean, std) -> "Preprocessing":
        """Return the same with another mean and deviation of the channels."""
        mean, std, n = _floats(mean), _floats(std), self.n_channels
        if not len(mean) == len(std) == n or min(std) <= 0:
            count = "three" if n == 3 else n
            raise ValueError(
                f"mean must be {count} numbers and std must be {count} numbers, each "
                f"above zero; got mean={mean}, std={std}."
            )
        return replace(self, mean=mean, std=std)

    def replace_channels(self, n: int, *, rgb: bool) -> "Preprocessing":
        """Return the same for images of another number of channels.

        Parameters
        ----------
        n : int
            How many channels images have. Where mean and deviation are those of three,
            one channel gets their average, and so do those behind the first three; or
            the three are repeated.
        rgb : bool
            Whether the first three are red, green and blue.
        """
        mean, std = self.mean, self.std
        if n != self.n_channels:
            if self.n_channels != 3:
                raise ValueError(
                    f"The preprocessing is for {self.n_channels} channels, not for {n}."
                )
            mean, std = extended(mean, n, rgb), extended(std, n, rgb)
        return replace(self, mean=mean, std=std, rgb=rgb)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON can hold."""
        values = asdict(self).items()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Preprocessing":
        """Build from what `to_dict` returned."""
        check_preprocessing(state)
        lists = {k: tuple(v) for k, v in state.items() if isinstance(v, list)}
        return cls(**{**state, **lists})


@dataclass(frozen=True)
class CallablePreprocessing:
    """A function from a PIL image to a normalised tensor, as a preprocessing.

    Parameters
    ----------
    transform : callable
        From an RGB ``PIL.Image`` to a float tensor (3, h, w), normalised; such as
        timm's ``create_transform(...)``. Images of other numbers of channels come as
        tensors, (n_channels, H, W), of uint8 or of floats in [0, 1].
    n_channels : int, default=3
        How many channels images have.
    rgb : bool, default=True
        Whether the first three channels are red, green and blue.

    Examples
    --------
    >>> from torchvision.transforms import functional as F
    >>> from PIL import Image
    >>> from sklearn_dl.backbones import CallablePreprocessing
    >>> preprocessing = CallablePreprocessing(F.to_tensor)
    >>> preprocessing.geometry(Image.new("RGB", (8, 6))).shape
    torch.Size([3, 6, 8])
    """

    transform: Callable[[Image.Image], torch.Tensor]
    n_channels: int = 3
    rgb: bool = True
    resizes_tensors: ClassVar[bool] = False

    @property
    def output_size(self) -> Size | None:
        """Height and width of what the function returns for a square image."""
        shape = self.geometry(blank_image(self.n_channels)).shape
        return shape[-2], shape[-1]

    def resizes(self, height: int, width: int) -> bool:
        """Return True: what the function does isn't known."""
        return True

    def geometry(self, image) -> torch.Tensor:
        """Apply the function to an image, or to each of a batch."""
        if isinstance(image, torch.Tensor):
            if image.ndim > 3:
                return torch.stack([self.geometry(one) for one in image])
            if self.n_channels == 3:
                image = F.to_pil_image(image)
        c, tensor = self.n_channels, isinstance(image, torch.Tensor)
        out = self.transform(image if tensor else image.convert("RGB"))
        if not isinstance(out, torch.Tensor) or out.ndim != 3 or out.shape[0] != c:
            found = tuple(out.shape) if hasattr(out, "shape") else type(out).__name__
            wanted = f"a float tensor ({c}, height, width)"
            raise TypeError(f"preprocessing must return {wanted}, got {found}.")
        return out

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch as it is: the function has normalised it."""
        return batch

    def part_seen(self, height: int, width: int) -> float:
        """Return 1: what the function leaves away isn't known."""
        return 1.0

    def replace_resize(self, resize):
        """Refuse: the size is the function's own."""
        raise ValueError("A preprocessing that is a function resizes by itself.")

    def replace_image_size(self, image_size):
        """Refuse: the size is the function's own."""
        raise ValueError(
            "image_size cannot be changed when preprocessing is a function; let the "
            "function return that size."
        )

    def replace_channels(self, n: int, *, rgb: bool) -> "CallablePreprocessing":
        """Return the same for images of another number of channels."""
        return replace(self, n_channels=n, rgb=rgb)

    def replace_normalization(self, mean, std):
        """Refuse: the normalisation is the function's own."""
        text = "The normalisation cannot be changed when preprocessing is a function."
        raise ValueError(text)

    def to_dict(self):
        """Refuse: a function cannot be written as JSON."""
        raise TypeError(
            "A preprocessing that is a function cannot be written down; give a "
            "Preprocessing instead."
        )


def extended(values: tuple[float, ...], n: int, rgb: bool) -> tuple[float, ...]:
    """Return values of red, green and blue for `n` channels."""
    average = sum(values) / len(values)
    if n == 1:
        return (average,)
    if rgb:
        return (*values, *(average,) * (n - 3))
    return tuple(values[c % 3] for c in range(n))


def blank_image(n_channels: int) -> Any:
    """Return a black image as a function takes it: of Pillow where it is RGB."""
    if n_channels == 3:
        return Image.new("RGB", (512, 512))
    return torch.zeros(n_channels, 512, 512, dtype=torch.uint8)


def resize_strip(image: Any, box: Any, size: Size, interpolation: str) -> Any:
    """Resize a part of an image, each band by Pillow, as `resize_part` does."""
    kind = FILTERS[interpolation]
    if isinstance(image, Image.Image):
        return resize_part(image, box, size, kind)
    bands = image.flatten(0, -3) if image.ndim > 2 else image[None]
    whole = bands if bands.dtype == torch.uint8 else bands.float()
    parts = _by_band(partial(resize_part, box=box, size=size, kind=kind), whole.cpu())
    return parts.to(image).reshape(*image.shape[:-2], *size)


def _is_bands(image: Any) -> bool:
    """Tell an image of bytes that is none of Pillow's, in the processor's memory."""
    if not isinstance(image, torch.Tensor) or image.ndim != 3:
        return False
    bytes_of_cpu = image.dtype == torch.uint8 and image.device.type == "cpu"
    return bytes_of_cpu and image.shape[0] not in (1, 3)


def _by_band(resize: Callable[[Any], Any], image: torch.Tensor) -> torch.Tensor:
    """Resize each band by Pillow, as those of photographs are."""
    bands = [resize(Image.fromarray(band.numpy())) for band in image]
    return torch.stack([torch.from_numpy(np.array(band)) for band in bands])


@lru_cache(maxsize=32)  # or each batch would wait for a copy to its device
def _line(
    values: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return a value for each channel of each pixel of a line."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).repeat(width)


def _floats(values) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def timm_config(module: torch.nn.Module) -> dict[str, Any]:
    """Return the configuration that a timm model carries; empty without one."""
    for name in ("pretrained_cfg", "default_cfg"):
        config: Any = getattr(module, name, None)
        if hasattr(config, "to_dict"):
            config = config.to_dict()
        if isinstance(config, dict) and config:
            return config
    return {}


def preprocessing_from_timm(module: torch.nn.Module) -> Preprocessing | None:
    """Take the numbers of a timm model's configuration; None without one."""
    config = timm_config(module)
    if not {"mean", "std", "input_size"} <= set(config):
        return None
    height, width = config["input_size"][-2:]
    crop_pct = config.get("crop_pct") or 0.875
    resize: int | Size = math.floor(min(height, width) / crop_pct)
    if height != width or config.get("crop_mode") == "squash":
        resize = (math.floor(height / crop_pct), math.floor(width / crop_pct))
    mean, std = _floats(config["mean"]), _floats(config["std"])
    mode = config.get("interpolation") or "bilinear"
    return Preprocessing(resize, (height, width), mean, std, mode)
