"""The one door to a backbone: name or callable, and weights, to a `Backbone`."""

import os
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms._presets import ImageClassification

from sklearn_dl._files import first_line
from sklearn_dl._images import Selection
from sklearn_dl._runtime import (
    fingerprint_text,
    own_generators,
    release_memory,
    seeded,
)
from sklearn_dl.backbones._backbone import (
    Backbone,
    Kept,
    around,
    bytes_of,
    indexed,
    place,
)
from sklearn_dl.backbones._cut import (
    FAILURES,
    POOLINGS,
    Layer,
    adapt_stem,
    cut,
    drop_unused,
    find_head,
    find_layers,
    find_stem,
    fit_stem,
    looks_channels_last,
    pool,
    split_layer,
    stem_channels,
    tap,
    tap_field,
    try_network,
)
from sklearn_dl.backbones._fold import ONCE
from sklearn_dl.backbones._preprocessing import (
    RESIZES,
    CallablePreprocessing,
    Preprocessing,
    preprocessing_from_timm,
    timm_config,
)
from sklearn_dl.backbones._stages import Stages, find_stages, keep_existing
from sklearn_dl.backbones._weights import (
    Checkpoint,
    cached_path,
    fetch,
    is_path,
    load_state,
    prepare_state,
    read_checkpoint,
    resize_positions,
    vit_image_size,
)
from sklearn_dl.backbones._zoo import (
    build,
    check_backbone_name,
    entry_preprocessing,
    find_entry,
    packaged,
    reference_entry,
    resolve_backbone,
    smallest_side,
    weight_entries,
)

AnyPreprocessing = Preprocessing | CallablePreprocessing
_KEPT_BYTES = 512 * 2**20
_SHELLS = 64  # requests by which one of them is found
_DEFAULTS: dict[str, Any] = {"layer": "pre_logits"}
_DEFAULTS |= dict.fromkeys(("preprocessing", "image_size", "channels"))


def load_backbone(
    backbone: str | Callable[[], nn.Module],
    weights: str | PathLike | WeightsEnum | None = "DEFAULT",
    *,
    layer: Layer = "pre_logits",
    preprocessing: Any = None,
    image_size: int | tuple[int, int] | None = None,
    channels: Any = None,
) -> Backbone:
    """Load a pretrained network without its last layer.

    Parameters
    ----------
    backbone : str or callable
        The name of a torchvision classification model (see :func:`list_backbones`);
        ``"auto"``, which is ``"mobilenet_v2"``, or the one of the built-in weights; or
        a function without arguments that returns a module from images (n, 3, h, w) to
        features or a feature map, such as ``partial(timm.create_model, "resnet26d")``;
        also from images of another number of channels, with timm's ``in_chans=1``.
    weights : str, path, torchvision weights or None, default="DEFAULT"
        The name of published weights (``"IMAGENET1K_V1"``), downloaded unless they are
        in torch's cache; ``"builtin"``, which are in this package, for the backbone
        ``"mobilenet_v3_small"``; the path of a state dict (``.pth``, ``.pt``,
        ``.safetensors``), read without executing code; or None for random weights from
        torch's generator. What a callable returns counts as pretrained unless None is
        given; a path is loaded into it.
    layer : str or (str, str), default="pre_logits"
        ``"pre_logits"`` is what enters the last layer, ``"pooled"`` the pooled output
        of the last stage (for a callable, both are what it returns); or the name of any
        submodule, see :func:`find_layers`; of a callable whose module gives a dataclass
        or a dict, as Hugging Face's do, also a field of that, such as
        ``"pooler_output"``. Layers behind it are removed. A map or
        tokens become one vector per image by the network's own pooling, for other
        layers by the average of a map and the first of the tokens. A pair
        ``("layer4", "max")`` chooses another: ``"avg"`` (also over all tokens),
        ``"max"``, ``"flatten"`` or ``"cls"``.
    preprocessing : None, Preprocessing, str, weights, preset or callable, default=None
        None takes that of the weights; for a file what its metadata say, else that of
        the first published weights, as for random ones. ``"pad"`` and ``"squash"``
        show all of each image in place of the centre. Otherwise the name of other
        published weights, a torchvision preset, or a function from a PIL image to a
        normalised tensor (3, h, w).
    image_size : int or (int, int), optional
        Another size of input: the side of the centre square, or height and width. A
        vision transformer's position embedding is interpolated to it.
    channels : int, sequence of int, Channels or None, default=None
        What images the network is for, where not for RGB ones: see
        `sklearn_dl.datasets.Channels`, which says how the first convolution is adapted.
        None takes as many as `preprocessing` has means.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If a name does not exist, a file does not fit or an image size is too small.
    OSError
        If weights are not at hand and cannot be downloaded.

    Notes
    -----
    A file can say how its images were prepared: in the ``preprocessing`` field of the
    metadata of a ``.safetensors`` file, the JSON of :meth:`Preprocessing.to_dict`; in
    a ``.pth`` file, ``{"state_dict": ..., "preprocessing": preprocessing.to_dict()}``.

    A random network gets BatchNorm momenta of at least 0.1: with MobileNetV3's 0.01 or
    MNASNet's 0.0003 its running statistics would hardly move in a short training.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import load_backbone
    >>> backbone = load_backbone("mobilenet_v3_small", "builtin", image_size=64)
    >>> backbone.n_features
    1024
    >>> backbone.eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1024])
    """
    split_layer(layer)  # what is wrong with it comes first
    backbone = resolve_backbone(backbone, weights)
    changes = _Changes(image_size, None if channels is None else Selection.of(channels))
    if callable(backbone):
        with own_generators(put_back=False):  # which a function may draw from
            return _load_callable(backbone, weights, layer, preprocessing, changes)
    name = check_backbone_name(backbone)
    checkpoint, entry, published = _find_weights(name, weights)
    prep = _chosen(preprocessing, name, published, changes)
    size, pretrained = input_size(name, prep, entry), checkpoint is not None
    with own_generators(put_back=False):  # which random weights are drawn from
        loaded, known, head = assemble_torchvision(
            name, size, prep, layer, pretrained, shapes_only=pretrained
        )
    if checkpoint is not None:
        needed = set(loaded.module.state_dict())
        state = prepare_state(checkpoint, needed, known, head)
        resize_positions(checkpoint, state, loaded.module)
        if prep.n_channels != 3:
            stem = find_stem(loaded.module, size)
            fit_stem(state, loaded.module, stem, prep.rgb)
        load_state(loaded.module, checkpoint, state, name=name, known=known)
    return loaded


class _Changes(NamedTuple):
    """What is asked of a preprocessing beside what it is."""

    image_size: int | tuple[int, int] | None
    channels: Selection | None

    def of(self, preprocessing: AnyPreprocessing) -> AnyPreprocessing:
        """Return a preprocessing with these changes."""
        if self.image_size is not None:
            preprocessing = preprocessing.replace_image_size(self.image_size)
        if self.channels is not None:
            n, rgb = self.channels.n, self.channels.rgb
            preprocessing = preprocessing.replace_channels(n, rgb=rgb)
        return preprocessing


def _find_weights(
    name: str, weights: Any
) -> tuple[Checkpoint | None, WeightsEnum, Preprocessing]:
    """Return the tensors, the entry they belong to or are near, the preprocessing."""
    entry = reference_entry(name)
    if weights is None:
        return None, entry, entry_preprocessing(entry)
    weights = packaged(name, weights)
    if is_path(weights, tuple(weight_entries(name))):
        checkpoint = read_checkpoint(weights)
        entry = _of_size(name, checkpoint, entry)
        return checkpoint, entry, checkpoint.preprocessing or entry_preprocessing(entry)
    if not isinstance(weights, str | WeightsEnum):
        raise TypeError(
            "weights must be the name of an entry, a path, torchvision weights or "
            f"None, got {type(weights).__name__}."
        )
    entry = find_entry(name, weights)
    path = fetch(entry)
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error} Delete it, to download it again.") from error
    return checkpoint, entry, entry_preprocessing(entry)


def _of_size(name: str, checkpoint: Checkpoint, entry: WeightsEnum) -> WeightsEnum:
    """Prefer the entry for the image size that a vision transformer's file shows."""
    names = {"encoder.pos_embedding", "conv_proj.weight"}
    size = None
    if name.startswith("vit_"):
        size = vit_image_size(checkpoint, prepare_state(checkpoint, names, names))
    for other in [entry, *weight_entries(name).values()]:
        if size is not None and entry_preprocessing(other).crop_size == (size, size):
            return other
    return entry


def _chosen(
    value: Any, name: str | None, own: AnyPreprocessing, changes: _Changes
) -> AnyPreprocessing:
    """Return the preprocessing that is asked for, else the weights' own, changed."""
    whole = isinstance(value, str) and value in RESIZES
    chosen = own if whole else resolve_preprocessing(value, name) or own
    chosen = changes.of(chosen)
    return chosen.replace_resize(value) if whole else chosen


def resolve_preprocessing(value: Any, name: str | None) -> AnyPreprocessing | None:
    """Turn what `preprocessing` may be into a preprocessing; None stays None."""
    if value is None or isinstance(value, Preprocessing | CallablePreprocessing):
        return value
    if isinstance(value, WeightsEnum):
        return entry_preprocessing(value)
    if isinstance(value, str) and name is not None:
        if (file := packaged(name, value)) is not value:
            return read_checkpoint(file).preprocessing
        try:
            return entry_preprocessing(find_entry(name, value))
        except ValueError as error:
            raise ValueError(
                f"preprocessing={value!r} must be 'data', 'pad', 'squash', (mean, "
                f"std), weights by name, a Preprocessing or a callable. {error}"
            ) from error
    if isinstance(value, ImageClassification):
        return Preprocessing.from_transforms(value)
    if callable(value):
        return CallablePreprocessing(value)
    raise TypeError(
        "preprocessing must be None, a Preprocessing, the name of torchvision weights "
        f"of a torchvision backbone, such weights, or a callable; got {value!r:.100}."
    )


def assemble_torchvision(
    name: str,
    size: tuple[int, int],  # from `input_size`
    preprocessing: AnyPreprocessing,
    layer: Layer,
    pretrained: bool,
    *,
    shapes_only: bool = True,
) -> tuple[Backbone, set[str], str]:
    """Return a backbone, the keys before it was cut, and the name of its last layer.

    With `shapes_only` its tensors have no memory yet.
    """
    module = build(name, size, shapes_only=shapes_only, pretrained=pretrained)
    known, head = set(module.state_dict()), find_head(module)
    if preprocessing.n_channels != 3:
        draw = not pretrained
        stem, n = find_stem(module, size), preprocessing.n_channels
        adapt_stem(module, stem, n, preprocessing.rgb, draw=draw)
        known |= {*module.state_dict()}
    stages = find_stages(module, torchvision=True)
    tapped = cut(module, *split_layer(layer))
    for part in module.modules() if not pretrained else ():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = part.momentum and max(part.momentum, 0.1)
    facts: dict[str, Any] = {"name": name, "preprocessing": preprocessing}
    facts |= {"pretrained": pretrained, "layer": layer}
    return _described(module, stages, tapped, size, facts), known, head


def input_size(
    name: str, preprocessing: AnyPreprocessing, entry: WeightsEnum | None = None
) -> tuple[int, int]:
    """Return height and width of the images that a network of torchvision's is for.

    Where the preprocessing doesn't tell, it is the size of the weights `entry`.
    """
    size = preprocessing.output_size
    size = size or entry_preprocessing(entry or reference_entry(name)).crop_size
    assert size is not None
    return size


def _described(
    module: nn.Module,
    stages: Stages,
    tapped: str | None,
    size: tuple[int, int],
    facts: dict[str, Any],
    devices: tuple[str, ...] = ("meta",),
) -> Backbone:
    """Try a network that was cut on an image of `size`, and describe it.

    It is tried on the devices, one after the other as they fail.
    """
    n_channels = facts["preprocessing"].n_channels
    for device in devices:
        try:
            trial = try_network(module, (n_channels, *size), device)
            break
        except FAILURES as error:
            if device == devices[-1]:
                name, least = facts["name"], ""
                if (smallest := smallest_side(name)) > min(size):
                    least = f" It takes at least {smallest}."
                channels = "" if n_channels == 3 else f" and {n_channels} channels"
                raise ValueError(
                    f"{name!r} does not take images of {size[0]} x {size[1]} pixels"
                    f"{channels}: {first_line(error)}{least}"
                ) from error
    if tapped is not None:
        if tapped not in trial.called:
            raise ValueError(
                f"The layer {tapped!r} of {facts['name']!r} is not called in its "
                "forward pass, so it cannot give features; name the layer around it."
            )
        drop_unused(module, trial)
    point, pooling = split_layer(facts["layer"])
    shape, ndim = trial.shape, len(trial.shape)
    valid = {2: ("flatten",), 3: POOLINGS, 4: ("avg", "max", "flatten")}
    # "cls" is a vision transformer's own way.
    own = ndim == 2 and point == "pre_logits" and pooling == "cls"
    if ndim not in valid or (not own and pooling not in (None, *valid[ndim])):
        raise ValueError(
            f"pooling={pooling!r} does not apply to layer={point!r}, whose output has "
            f"the shape {('n', *shape[1:])}."
        )
    channels_last = looks_channels_last(shape, size)
    vector = pool(torch.empty(shape, device="meta"), pooling, channels_last)
    return Backbone(
        module,
        n_features=vector.shape[1],
        stages=keep_existing(module, stages),
        channels_last=channels_last,
        **facts,
    )


def _load_callable(
    backbone: Callable[[], nn.Module],
    weights: Any,
    layer: Layer,
    preprocessing: Any,
    changes: _Changes,
) -> Backbone:
    module = _call(backbone)
    known = set(module.state_dict())
    name, heads = _timm_facts(module, _callable_name(backbone))
    checkpoint = _read_for_callable(weights)
    own = preprocessing_from_timm(module)
    if checkpoint is not None:
        own = checkpoint.preprocessing or own
    own = own or entry_preprocessing(reference_entry("resnet18"))
    chosen = _chosen(preprocessing, None, own, changes)
    stem, chosen = _fit_channels(module, chosen, changes.channels)
    size = chosen.output_size or (224, 224)
    tapped = _cut_callable(module, split_layer(layer)[0], size)
    facts: dict[str, Any] = {"name": name, "preprocessing": chosen, "layer": layer}
    facts |= {"pretrained": weights is not None}
    stages = find_stages(module, torchvision=False)
    loaded = _described(module, stages, tapped, size, facts, devices=("meta", "real"))
    if checkpoint is not None:
        needed = set(module.state_dict())
        state = prepare_state(checkpoint, needed, known, *heads)
        fit_stem(state, module, stem, chosen.rgb)
        load_state(module, checkpoint, state, name=name, known=known)
    return loaded


def _fit_channels(
    module: nn.Module, preprocessing: AnyPreprocessing, asked: Selection | None
) -> tuple[str | None, AnyPreprocessing]:
    """Make a network and a preprocessing one for the same number of channels.

    Return the name of the stem where it was adapted, and the preprocessing.
    """
    n, size = preprocessing.n_channels, preprocessing.output_size or (224, 224)
    stem = find_stem(module, size)
    own = stem_channels(module, stem)
    if own == n or (n == 3 and own is None):
        return None, preprocessing
    if n != 3 or asked is not None:
        if own is not None or not _takes(module, (n, *size)):
            adapt_stem(module, stem, n, preprocessing.rgb)
            return stem, preprocessing
    elif not _takes(module, (n, *size)) and own is not None:  # timm's in_chans
        return None, preprocessing.replace_channels(own, rgb=own == 4)
    return None, preprocessing


def _takes(module: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Tell whether a network runs on an image of some shape."""
    try:
        try_network(module, shape, "real")
    except FAILURES:
        return False
    return True


def _call(backbone: Callable[[], nn.Module]) -> nn.Module:
    """Call the user's function; what it returns stays the user's."""
    if isinstance(backbone, nn.Module):
        raise TypeError(
            "backbone is a module; give a function that returns it, such as "
            "backbone=lambda: module."
        )
    module, named = backbone(), f"The backbone callable {_callable_name(backbone)!r}"
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise TypeError(f"{named} must return a torch.nn.Module, got {kind}.")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"{named} returns a scripted network, whose parts can't be hooked: return "
            "the module it was made from."
        )
    return deepcopy(module)


def _callable_name(backbone: Any) -> str:
    while isinstance(backbone, partial):
        backbone = backbone.func
    return getattr(backbone, "__name__", type(backbone).__name__)


def _timm_facts(module: nn.Module, name: str) -> tuple[str, tuple[str, ...]]:
    """Return name and head layers, as far as timm's config tells."""
    config = timm_config(module)
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    return config.get("architecture") or name, heads


def _read_for_callable(weights: Any) -> Checkpoint | None:
    if weights is None or weights == "DEFAULT":
        return None
    if not is_path(weights):
        raise ValueError(
            f"weights={weights!r} cannot be used with a callable backbone: give the "
            "path of a file, or let the callable load its weights."
        )
    return read_checkpoint(weights)


def _cut_callable(module: nn.Module, layer: str, size: tuple[int, int]) -> str | None:
    if layer not in ("pre_logits", "pooled"):
        if layer in find_layers(module):
            return tap(module, layer)
        tap_field(module, layer, size)
        return None
    is_timm = hasattr(module, "reset_classifier") and hasattr(module, "num_features")
    if is_timm and getattr(module, "num_classes", None) != 0:
        module.reset_classifier(0)  # type: ignore[operator]
    return None


def shared_backbone(
    backbone: str | Callable[[], nn.Module],
    weights: str | PathLike | WeightsEnum | None = "DEFAULT",
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Backbone:
    """Return the frozen backbone that all share who ask for the same in this process.

    `options` are those of `load_backbone`. It is built, read and hashed once, then only
    handed out: the very same modules and tensors, settled, in evaluation mode and
    channels_last format. Nobody may write to them; who wants to takes a
    ``copy.deepcopy``. Random weights are drawn from `seed`; a callable is called each
    time.

    The backbones asked for last are kept for the next who asks, up to 512 MiB with
    their folded forms (or the very last, if it is larger); others as long as somebody
    holds them. What was read from a file is read again when the file has changed.
    """
    where = indexed(torch.device(device)), dtype
    if backbone == "auto":
        backbone = resolve_backbone(backbone, weights)
    options = {**_DEFAULTS, **options}
    preprocessing, channels = options["preprocessing"], options["channels"]
    asked = None if channels is None else Selection.of(channels)
    options["channels"] = asked

    def kept_one() -> Backbone | None:
        kept = _SHARED.requested.get(request)
        if kept is None:
            return None
        attributes = kept.shells[request]
        own, name = attributes["preprocessing"], attributes["name"]
        if not (preprocessing is None or preprocessing in RESIZES):
            # the one given, rather than one with the same text
            changes = _Changes(options["image_size"], asked)
            own = _chosen(preprocessing, name, own, changes)
        _SHARED.keep(kept)
        module, own = attributes["_modules"]["module"], {"preprocessing": own}
        return around(module, kept, {**attributes, **own})

    with ONCE.lock, torch.inference_mode(False):
        request = _request(backbone, weights, seed, options, where)
        if (found := kept_one()) is not None:
            return found
    # The generators come first: who trains has them when it takes the other lock.
    with seeded(seed, where[0]), ONCE.lock, torch.inference_mode(False):
        if (found := kept_one()) is not None:  # built meanwhile
            return found
        shared = share(load_backbone(backbone, weights, **options), *where)
        again = _request(backbone, weights, seed, options, where)
        if again and request in (again, ()):  # (): the file was fetched just now
            kept = _SHARED.requested[again] = shared._kept
            kept.shells[again] = {k: v for k, v in vars(shared).items() if k != "_kept"}
            if len(kept.shells) > _SHELLS:
                oldest = next(iter(kept.shells))
                del kept.shells[oldest], _SHARED.requested[oldest]
        return shared


def share(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Return a backbone around the process's one network of the same content.

    `backbone` is taken over: it is frozen, settled and placed, and its network is the
    one that is shared unless there is one already.
    """
    device = indexed(device)
    with ONCE.lock, torch.inference_mode(False):
        backbone.freeze("head")
        backbone.settle()
        backbone = place(backbone, device, dtype)
        content = backbone.identity(), device
        kept = _SHARED.contents.get(content)
        if kept is None:
            kept = _SHARED.contents[content] = backbone._kept
            kept.shared, kept.network = True, backbone.module
            kept.n_bytes = bytes_of(backbone.module)
        _SHARED.keep(kept)
        assert kept.network is not None
        return around(kept.network, kept, vars(backbone))


def forget_shared() -> None:
    """Let go of the backbones that are kept for those who ask next."""
    with ONCE.lock:
        _SHARED.requested.clear()
        _SHARED.contents.clear()
        _SHARED.recent.clear()


class _Registry:
    """The networks that are shared: found by request, and by content."""

    def __init__(self) -> None:
        self.requested: WeakValueDictionary[tuple, Kept] = WeakValueDictionary()
        self.contents: WeakValueDictionary[tuple, Kept] = WeakValueDictionary()
        self.recent: list[Kept] = []

    def keep(self, kept: Kept) -> None:
        """Keep a network, and those before it as far as there is room."""
        self.recent = [*(old for old in self.recent if old is not kept), kept]
        full = len(self.recent)
        while (
            len(self.recent) > 1 and sum(k.n_bytes for k in self.recent) > _KEPT_BYTES
        ):
            del self.recent[0]
        if len(self.recent) < full:
            release_memory(at_once=True)


_SHARED = _Registry()


def _request(backbone, weights, seed, options, where) -> tuple:
    """Return what a network is found by again; () if that can't be told."""
    if callable(backbone):
        return ()
    if weights is None:
        origin: tuple = (check_backbone_name(backbone), seed)
    else:
        try:
            entry, path = _file_of(backbone, weights, torch.hub.get_dir())
            now = os.stat(path)
        except (AttributeError, OSError, TypeError, ValueError):  # loading says why
            return ()
        state = now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev
        origin = (backbone, entry, os.path.abspath(path), *state)
    preprocessing = options["preprocessing"]
    if not isinstance(preprocessing, Preprocessing | str | None):
        preprocessing = fingerprint_text(preprocessing)
    layer, size = options["layer"], options["image_size"]
    layer = layer if isinstance(layer, str) else split_layer(layer)
    return (*origin, layer, preprocessing, size, options["channels"], *where)


@lru_cache(maxsize=64)
def _file_of(name: str, weights: Any, cache_folder: str) -> tuple[str, Path]:
    """Return the entry that weights are of, if any, and the file that holds them."""
    weights = packaged(check_backbone_name(name), weights)
    if is_path(weights, tuple(weight_entries(name))):
        return "", Path(weights).expanduser()
    found = find_entry(name, weights)
    return found.name, cached_path(found)
