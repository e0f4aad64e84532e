"""Crops of photographs and of drawn images, changed at random: what the student sees.

Everything runs in batches on one device, from one generator: no loader, no workers.
"""

import math
from pathlib import Path

import numpy as np
import torch
from formulas import draw, leaf, normal, plane, stretch, uniform, whole
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

# The photographs in the packages, and how often each is drawn from.
SKIMAGE = {
    **{"astronaut.png": 2.0, "chelsea.png": 2.0, "motorcycle_left.png": 2.0},
    **{"camera.png": 1.0, "coins.png": 1.0, "brick.png": 0.7, "grass.png": 1.0},
    **{"gravel.png": 0.7, "ihc.png": 0.7, "hubble_deep_field.jpg": 0.5},
    **{"moon.png": 0.3, "page.png": 0.5, "retina.jpg": 0.3, "text.png": 0.5},
    **{"cell.png": 0.2, "coffee.png": 1.0, "rocket.jpg": 1.0},
}
SKLEARN = {"china.jpg": 2.0, "flower.jpg": 2.0}
VALIDATION_PHOTOS = ("coffee.png", "rocket.jpg")  # only validated on
SMALLEST = 48  # pixels of the shorter side, of the smallest copy of a photograph


def photographs() -> dict[str, tuple[Tensor, float]]:
    """Read the bundled photographs, uint8 (3, height, width), and their weights.

    Raises
    ------
    SystemExit
        If scikit-image is not installed.
    """
    import sklearn.datasets

    try:
        import skimage
    except ModuleNotFoundError as error:
        raise SystemExit(
            "pretrain: the photographs are in scikit-image: pip install scikit-image"
        ) from error
    folders = {
        Path(skimage.__file__).parent / "data": SKIMAGE,
        Path(sklearn.datasets.__file__).parent / "images": SKLEARN,
    }
    images = {}
    for folder, names in folders.items():
        for name, weight in names.items():
            if not (folder / name).exists():
                print(f"{folder / name} is not in this version, going on without it")
                continue
            with Image.open(folder / name) as image:
                pixels = np.array(image.convert("RGB"))
            images[name] = torch.from_numpy(pixels).permute(2, 0, 1), weight
    return images


class Atlas:
    """Photographs at full, half, quarter ... size, side by side on one sheet.

    A crop then is a grid of places on the sheet, whatever photograph it is from, and a
    whole batch is one call of ``grid_sample``.
    """

    def __init__(self, images: list[tuple[Tensor, float]], device: torch.device):
        levels = []
        for image, weight in images:
            copy = image[None].float() / 255
            while min(copy.shape[2:]) >= SMALLEST:
                levels.append((copy[0], weight))
                size = [side // 2 for side in copy.shape[2:]]
                copy = F.interpolate(copy, size, mode="area")
        levels.sort(key=lambda level: -level[0].shape[1])
        width = max(2048, *(level.shape[2] for level, _ in levels))
        boxes, x, y, shelf = [], 0, 0, 0
        for level, _ in levels:
            height, across = level.shape[1:]
            if x + across > width:
                x, y, shelf = 0, y + shelf, 0
            boxes.append((x, y, across, height))
            x, shelf = x + across, max(shelf, height)
        sheet = torch.zeros(3, y + shelf, width)
        for (level, _), (x, y, across, height) in zip(levels, boxes, strict=True):
            sheet[:, y : y + height, x : x + across] = level
        self.sheet = sheet.to(device)
        self.boxes = torch.tensor(boxes, dtype=torch.float32, device=device)
        weights = [weight for _, weight in levels]
        self.weight = torch.tensor(weights, device=device)

    def crops(self, generator, n: int, size: int) -> Tensor:
        """Draw n crops (n, 3, size, size), turned, skewed and of many scales."""
        chosen = torch.multinomial(self.weight, n, True, generator=generator)
        x, y, across, height = self.boxes[chosen].T[..., None, None]
        short = torch.minimum(across, height)
        # Side of the crop in pixels of this copy: enlarged 2.5 times to reduced 1.5.
        low, high = math.log(size / 2.5), math.log(size * 1.5)
        side = torch.exp(uniform(generator, low, high, n, 1, 1)).minimum(short)
        u, v = warp(generator, n, size)
        u, v = u * side / 2, v * side / 2
        cx = side / 2 + uniform(generator, 0, 1, n, 1, 1) * (across - side)
        cy = side / 2 + uniform(generator, 0, 1, n, 1, 1) * (height - side)
        px = reflect(u + cx, across - 1) + x
        py = reflect(v + cy, height - 1) + y
        total_y, total_x = self.sheet.shape[1:]
        grid = torch.stack(
            [(2 * px + 1) / total_x - 1, (2 * py + 1) / total_y - 1], dim=-1
        )
        # One sheet for all: on a CPU a sheet per row lets the threads share the rows,
        # elsewhere one tall grid spares copies of the sheet.
        if grid.device.type == "cpu":
            sheet = self.sheet.expand(n, -1, -1, -1)
            return F.grid_sample(sheet, grid, align_corners=False)
        drawn = F.grid_sample(
            self.sheet[None], grid.reshape(1, n * size, size, 2), align_corners=False
        )
        return drawn[0].unflatten(1, (n, size)).transpose(0, 1)


def warp(generator, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Places (n, size, size) from -1 to 1, turned, skewed, mirrored, in perspective."""
    line = (torch.arange(size, device=generator.device) + 0.5) * (2 / size) - 1
    y, x = line[:, None], line[None, :]
    turned = uniform(generator, 0, 1, n, 1, 1) < 0.6
    angle = uniform(generator, -0.6, 0.6, n, 1, 1) * turned
    stretch = torch.exp(uniform(generator, -0.25, 0.25, n, 1, 1))
    mirror = (uniform(generator, 0, 1, n, 1, 1) < 0.5) * 2.0 - 1
    skew = uniform(generator, -0.2, 0.2, n, 1, 1) * turned
    px, py = uniform(generator, -0.2, 0.2, 2, n, 1, 1)
    depth = 1 + px * x + py * y
    # A third is bent by a wave along either side.
    bent = 0.12 * (uniform(generator, 0, 1, n, 1, 1) < 0.35)
    along, across = uniform(generator, 1, 7, 2, n, 1, 1)
    phase, other = uniform(generator, 0, 2 * math.pi, 2, n, 1, 1)
    x, y = (
        x + bent * torch.sin(along * y + phase),
        y + bent * torch.sin(across * x + other),
    )
    u = mirror * (x * angle.cos() - y * angle.sin() + skew * y) * stretch / depth
    v = (x * angle.sin() + y * angle.cos()) / stretch / depth
    return u, v


def reflect(place: Tensor, last: Tensor) -> Tensor:
    """Fold places outside 0 ... last back inside, as in a mirror."""
    place = place.abs() % (2 * last)
    return torch.minimum(place, 2 * last - place)


def zoom(generator, images: Tensor, size: int) -> Tensor:
    """Cut a random part, 35 to 100 % of the area, out of each uint8 image."""
    n = len(images)
    side = uniform(generator, 0.35, 1, n, 1, 1).sqrt()
    u, v = warp(generator, n, size)
    cx, cy = uniform(generator, -1, 1, 2, n, 1, 1) * (1 - side)
    grid = torch.stack([u * side + cx, v * side + cy], dim=-1)
    images = images.float() / 255
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(generator, images: Tensor, luma: Tensor) -> Tensor:
    """Change colours, light and contrast; some images to grey, some to negatives."""
    n, _, *shape = images.shape
    # Slightly for most; for a tenth, any colours at all.
    kind = uniform(generator, 0, 1, n, 1, 1)
    change = 0.15 * (kind < 0.7) + 0.6 * (kind > 0.9)
    mixing = torch.eye(3, device=images.device) + change * torch.randn(
        n, 3, 3, generator=generator, device=images.device
    )
    grey = uniform(generator, 0, 1, n, 1, 1) < 0.1
    mixing = torch.where(grey, luma.expand(n, 3, 3), mixing)
    # Contrast about the middle, light, negatives: all in one product and one sum.
    gain = torch.exp(uniform(generator, -0.4, 0.4, n, 1, 1))
    sign = 1 - 2.0 * (uniform(generator, 0, 1, n, 1, 1) < 0.03)
    light = uniform(generator, -0.15, 0.15, n, 1, 1)
    bias = (0.5 + sign * (light - 0.5 * gain)).expand(n, 3, 1)
    images = torch.baddbmm(bias, sign * gain * mixing, images.flatten(2))
    images = images.view(n, 3, *shape).clamp_(0, 1)
    rough = images[: n // 7]  # rows come in random order
    noise = torch.randn(rough.shape, generator=generator, device=images.device)
    rough.add_(noise, alpha=0.05).clamp_(0, 1)
    return images


def mix(generator, images: Tensor, side: int) -> Tensor:
    """Blend images, paste shapes of others into them, give them others' textures.

    Some go through filters of `side` x `side` pixels.

    The teacher sees the mixed image too, so no label needs mixing (Beyer et al.,
    "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022).
    """
    n, size = len(images), images.shape[-1]
    x, y = plane(size, images.device)
    swapped, blended, pasted, filtered = n // 10, n // 8, n // 4, n // 6
    # Rows come in random order, so which are changed is random too.
    rest = n - swapped - blended - pasted - filtered
    rows = images.split([swapped, blended, pasted, rest, filtered])
    # What phases draw, with the strengths of another image's frequencies.
    strength = torch.fft.rfft2(rows[3][:swapped]).abs()
    waves = torch.polar(strength, torch.fft.rfft2(rows[0]).angle())
    first = torch.fft.irfft2(waves, s=(size, size)).clamp_(0, 1)
    share = uniform(generator, 0.25, 0.75, blended, 1, 1, 1)
    second = torch.lerp(rows[1], rows[3][-blended:], share)
    third = rows[2]
    for k in range(2):
        radius = uniform(generator, 0.2, 0.7, pasted, 1, 1)
        inside = leaf(generator, pasted, x, y, radius)
        third = torch.where(inside, rows[2].roll(k + 1, dims=0), third)
    return torch.cat(
        [first, second, third, rows[3], refilter(generator, rows[4], side)]
    )


def refilter(generator, images: Tensor, side: int) -> Tensor:
    """Run each image through a random filter of its own: other textures and colours.

    Xu et al., "Robust and generalizable visual representation learning via random
    convolutions", ICLR 2021.
    """
    n, _, *shape = images.shape
    filters = normal(generator, 3 * n, 3, side, side) / side
    rows = images.reshape(1, 3 * n, *shape)
    filtered = F.conv2d(rows - 0.5, filters, padding=side // 2, groups=n)
    share = uniform(generator, 0, 0.7, n, 1, 1, 1)
    return torch.lerp(stretch(filtered.view_as(images)), images, share)


class Crops:
    """Batches without end: two thirds photographs, one third drawn images.

    Parameters
    ----------
    photos : list of (Tensor, float)
        uint8 (3, h, w), and how often each is drawn from.
    generator : torch.Generator
        Everything is drawn from it, on its device.
    side : int
        Of the drawn images, in pixels.
    drawn : int
        Drawn images kept at a time; one in sixteen batches replaces a few.
    """

    def __init__(self, photos, generator, side: int, drawn: int):
        self.generator = generator
        self.atlas = Atlas(photos, generator.device)
        self.drawn = draw(generator, drawn, side)
        self.luma = torch.tensor([0.299, 0.587, 0.114], device=generator.device)
        self.batches = 0

    def batch(self, n: int, size: int, mixed: bool = True) -> Tensor:
        """Draw n crops, float32 (n, 3, size, size) in [0, 1]; some mixed, if wanted."""
        g = self.generator
        if self.batches % 16 == 15:
            fresh = draw(g, 24, self.drawn.shape[-1])
            rows = whole(g, 0, len(self.drawn), len(fresh))
            self.drawn[rows] = fresh
        self.batches += 1
        rows = whole(g, 0, len(self.drawn), n // 3)
        parts = [
            self.atlas.crops(g, n - len(rows), size),
            zoom(g, self.drawn[rows], size),
        ]
        images = torch.cat(parts)
        order = torch.randperm(n, generator=g, device=g.device)
        images = recolour(g, images[order], self.luma)
        # By turns: a side that is drawn would have to be waited for on a GPU.
        side = (1, 3, 5)[self.batches % 3]
        return mix(g, images, side) if mixed else images
