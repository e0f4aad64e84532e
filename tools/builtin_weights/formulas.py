"""Images made by formula: noise, waves, dead leaves, fractals and strokes.

Each function draws ``n`` images of ``size`` x ``size`` pixels from a generator, on its
device, as float32 in [0, 1] of shape (n, 3, size, size). Pretraining on images without
any photograph is due to Kataoka et al., "Pre-training without natural images", ACCV
2020 (fractals), and Baradad et al., "Learning to see by looking at noise", NeurIPS 2021
(spectra, dead leaves).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def uniform(generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw uniform numbers on the generator's device."""
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * drawn


def normal(generator, *shape: int) -> Tensor:
    """Draw standard normal numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def whole(generator, low: int, high: int, *shape: int) -> Tensor:
    """Draw whole numbers from low to high - 1."""
    device = generator.device
    return torch.randint(low, high, shape, generator=generator, device=device)


def plane(size: int, device) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels: x and y from -1 to 1, each (size, size)."""
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def stretch(images: Tensor) -> Tensor:
    """Bring each image to the range [0, 1]."""
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)


def colours(generator, n: int, planes: Tensor) -> Tensor:
    """Mix the planes (n, k, size, size) of each image into three colours."""
    mixing = normal(generator, n, 3, planes.shape[1])
    grey = uniform(generator, 0, 1, n, 1, 1) < 0.15
    mixing = torch.where(grey, mixing[:, :1], mixing)
    return stretch(torch.einsum("nck,nkhw->nchw", mixing, planes))


def spectra(generator, n: int, size: int) -> Tensor:
    """Noise whose spectrum falls with the frequency, stretched in one direction."""
    device = generator.device
    fy = torch.fft.fftfreq(size, device=device)[:, None]
    fx = torch.fft.rfftfreq(size, device=device)[None, :]
    angle = uniform(generator, 0, math.pi, n, 1, 1, 1)
    ratio = torch.exp(uniform(generator, -1.5, 1.5, n, 1, 1, 1))
    along = (fx * angle.cos() + fy * angle.sin()) * ratio
    across = (fy * angle.cos() - fx * angle.sin()) / ratio
    falls = uniform(generator, 0.4, 2.4, n, 1, 1, 1)
    amplitude = (along.square() + across.square() + 1 / size**2).pow(-falls / 2)
    white = torch.fft.rfft2(normal(generator, n, 3, size, size))
    noise = torch.fft.irfft2(white * amplitude, s=(size, size))
    noise = noise / noise.std(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    # Some as ridges, some as patches with sharp edges.
    kind = uniform(generator, 0, 1, n, 1, 1, 1)
    steep = torch.exp(uniform(generator, 0.5, 3, n, 1, 1, 1))
    noise = torch.where(kind < 0.2, noise.abs(), noise)
    noise = torch.where(kind > 0.6, torch.tanh(noise * steep), noise)
    return colours(generator, n, noise)


def waves(generator, n: int, size: int) -> Tensor:
    """Gratings and rings, bent by a slow wave: stripes, checks, moire."""
    x, y = plane(size, generator.device)
    planes = []
    bend = uniform(generator, 0, 0.3, n, 1, 1)
    turn = uniform(generator, 0, 2 * math.pi, n, 1, 1)
    slow = torch.sin(3 * (x * turn.cos() + y * turn.sin()) + turn)
    for _ in range(3):
        angle = uniform(generator, 0, math.pi, n, 1, 1)
        frequency = torch.exp(uniform(generator, 1, 4.3, n, 1, 1))
        phase = uniform(generator, 0, 2 * math.pi, n, 1, 1)
        cx, cy = uniform(generator, -1, 1, 2, n, 1, 1)
        straight = x * angle.cos() + y * angle.sin()
        rings = ((x - cx).square() + (y - cy).square()).sqrt()
        ringed = uniform(generator, 0, 1, n, 1, 1) < 0.25
        where = torch.where(ringed, rings, straight) + bend * slow
        sharp = torch.exp(uniform(generator, -1, 3, n, 1, 1))
        planes.append(torch.tanh(sharp * torch.sin(frequency * where + phase)))
    return colours(generator, n, torch.stack(planes, dim=1))


def leaf(generator, n: int, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Mask (n, 1, size, size) of a shape: an ellipse, a box, a star or a flower."""
    cx, cy = uniform(generator, -1.1, 1.1, 2, n, 1, 1)
    angle = uniform(generator, 0, 2 * math.pi, n, 1, 1)
    ratio = torch.exp(uniform(generator, -1.1, 1.1, n, 1, 1))
    u = ((x - cx) * angle.cos() + (y - cy) * angle.sin()) * ratio
    v = ((y - cy) * angle.cos() - (x - cx) * angle.sin()) / ratio
    petals = whole(generator, 2, 9, n, 1, 1)
    depth = uniform(generator, 0, 0.7, n, 1, 1)
    edge = radius * (1 + depth * torch.cos(petals * torch.atan2(v, u)))
    kind = uniform(generator, 0, 1, n, 1, 1)
    ellipse = u.square() + v.square() < radius.square()
    box = torch.maximum(u.abs(), v.abs()) < radius
    star = u.square() + v.square() < edge.square()
    mask = torch.where(kind < 0.35, ellipse, torch.where(kind < 0.65, box, star))
    return mask[:, None]


def dead_leaves(generator, n: int, size: int, leaves: int = 40) -> Tensor:
    """Shapes that lie upon each other, plain, shaded or with a texture of their own."""
    x, y = plane(size, generator.device)
    textures = torch.cat([spectra(generator, n, size), waves(generator, n, size)])
    images = textures[torch.randperm(2 * n, generator=generator, device=x.device)[:n]]
    fewer = whole(generator, 3, leaves + 1, n, 1, 1, 1)
    for k in range(leaves):
        radius = 0.9 * uniform(generator, 0.08, 1, n, 1, 1).pow(1 + 2 * k / leaves)
        mask = leaf(generator, n, x, y, radius) & (k < fewer)
        paint = uniform(generator, 0, 1, n, 3, 1, 1)
        light, way = uniform(generator, -0.5, 0.5, 2, n, 1, 1, 1)
        paint = (paint + light * x + way * y).clamp(0, 1)
        textured = uniform(generator, 0, 1, n, 1, 1, 1) < 0.4
        order = torch.randperm(2 * n, generator=generator, device=x.device)[:n]
        paint = torch.where(textured, (paint + textures[order]) / 2, paint)
        images = torch.where(mask, paint, images)
    return images


def fractals(generator, n: int, size: int, points: int = 512, turns: int = 120):
    """Draw iterated function systems by the chaos game, in random colours."""
    device = generator.device
    maps = 5
    # Each map turns, contracts by two factors and turns again.
    turn = uniform(generator, 0, 2 * math.pi, 2, n, maps)
    cos, sin = turn.cos(), turn.sin()
    turns_by = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
    factors = uniform(generator, 0.35, 0.85, n, maps, 1, 2)
    linear = (turns_by[0] * factors) @ turns_by[1]
    shift = uniform(generator, -1, 1, n, maps, 2)
    used = whole(generator, 2, maps + 1, n, 1)
    at = uniform(generator, -1, 1, n, points, 2)
    rows = torch.arange(n, device=device)[:, None]
    places, chosen = [], []
    for turn in range(turns):
        choice = (uniform(generator, 0, 1, n, points) * used).long()
        at = torch.einsum("npij,npj->npi", linear[rows, choice], at)
        at = at + shift[rows, choice]
        if turn >= 20:
            places.append(at)
            chosen.append(choice)
    at, choice = torch.cat(places, 1), torch.cat(chosen, 1)
    low, high = at.amin(1, keepdim=True), at.amax(1, keepdim=True)
    at = (at - low) / (high - low).clamp_min(1e-6)
    pixel = (at * (size - 1)).round().long()
    index = choice * size * size + pixel[..., 1] * size + pixel[..., 0]
    counts = torch.zeros(n, maps * size * size, device=device)
    counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
    density = torch.log1p(counts).view(n, maps, size, size)
    density = density / density.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    paint = uniform(generator, 0, 1, n, maps, 3)
    ground = uniform(generator, 0, 1, n, 3, 1, 1) * 0.6
    drawn = torch.einsum("nkhw,nkc->nchw", density, paint)
    cover = density.sum(1, keepdim=True).clamp(0, 1)
    return (ground * (1 - cover) + drawn).clamp(0, 1)


def strokes(generator, n: int, size: int, curves: int = 5, points: int = 40) -> Tensor:
    """Curved lines of a pen, as in writing, on a plain or a cloudy ground."""
    x, y = plane(size, generator.device)
    t = torch.linspace(0, 1, points, device=x.device)
    basis = torch.stack(
        [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1
    )
    ink = torch.zeros(n, 1, size, size, device=x.device)
    used = whole(generator, 1, curves + 1, n, 1, 1)
    width = torch.exp(uniform(generator, -4, -1.8, n, 1, 1))
    start = uniform(generator, -0.8, 0.8, n, 1, 2)
    for k in range(curves):
        steps = uniform(generator, -1, 1, n, 3, 2)
        corners = torch.cat([start, (start + steps).clamp(-0.95, 0.95)], dim=1)
        line = basis @ corners
        far = torch.full((n, size, size), 9.0, device=x.device)
        for p in range(points):
            px, py = line[:, p, 0, None, None], line[:, p, 1, None, None]
            far = torch.minimum(far, (x - px).square() + (y - py).square())
        drawn = torch.sigmoid((width - far.sqrt()) * size / 2) * (k < used)
        ink = torch.maximum(ink, drawn[:, None])
        # Half of the curves go on where the last one ended.
        joined = uniform(generator, 0, 1, n, 1, 1) < 0.5
        start = torch.where(
            joined, corners[:, -1:], uniform(generator, -0.8, 0.8, n, 1, 2)
        )
    cloudy = uniform(generator, 0, 1, n, 1, 1, 1) < 0.3
    ground = uniform(generator, 0, 1, n, 3, 1, 1).expand(n, 3, size, size)
    black = uniform(generator, 0, 1, n, 1, 1, 1) < 0.4
    ground = torch.where(cloudy, spectra(generator, n, size), ground) * ~black
    pen = torch.where(black, 1.0, uniform(generator, 0, 1, n, 3, 1, 1))
    return ground * (1 - ink) + pen * ink


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "spectra": spectra,
    "waves": waves,
    "dead leaves": dead_leaves,
    "fractals": fractals,
    "strokes": strokes,
}


def draw(generator, n: int, size: int) -> Tensor:
    """Draw n images, uint8 (n, 3, size, size): dead leaves twice as often."""
    share = dict.fromkeys(FORMULAS, 1) | {"dead leaves": 2}
    parts = []
    for name, formula in FORMULAS.items():
        count = math.ceil(n * share[name] / sum(share.values()))
        for start in range(0, count, 32):
            images = formula(generator, min(32, count - start), size)
            parts.append((images * 255).round().clamp(0, 255).byte())
    images = torch.cat(parts)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    return images[order[:n]]
