"""A student that learns to see what a teacher sees, on images of no class at all.

The student matches the teacher's last feature map, its pooled features and, through the
teacher's own last layer, its classes. Whatever the crop shows, both see the same crop
(Asano and Saeed, "The augmented image prior: distilling 1000 classes by extrapolating
from a single image", ICLR 2023).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision import models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of the teacher
TEMPERATURE = 2.0
WIDTHS = {"early": 96, "late": 320, "features": 1280}
WEIGHTS = {"early": 0.5, "late": 1.0, "features": 1.0, "classes": 0.3}

Outputs = tuple[Tensor, Tensor, Tensor]


class Teacher(nn.Module):
    """MobileNetV2 in evaluation mode: a map of 320 channels, 1,280 features, logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        for block in list(model.modules()):
            if not isinstance(block, nn.Sequential):
                continue
            for k in range(len(block) - 1):
                pair = block[k], block[k + 1]
                if isinstance(pair[0], nn.Conv2d) and isinstance(
                    pair[1], nn.BatchNorm2d
                ):
                    block[k] = fuse_conv_bn_eval(pair[0].eval(), pair[1].eval())
                    block[k + 1] = nn.Identity()
        self.to_early, self.to_map = model.features[:14], model.features[14:-1]
        self.to_features = model.features[-1]
        self.classifier = model.classifier[-1]
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Outputs:
        """Return maps (n, 96, 2h, 2w) and (n, 320, h, w), features (n, 1280)."""
        early = self.to_early(images.to(self.classifier.weight.dtype))
        late = self.to_map(early)
        features = self.to_features(late).mean(dim=(2, 3))
        return early.float(), late.float(), features.float()


class Student(nn.Module):
    """A small network, and the layers that turn its features into the teacher's."""

    def __init__(self, name: str, teacher: Teacher):
        super().__init__()
        self.name = name
        model = models.get_model(name, weights=None)
        if hasattr(model, "features"):  # MobileNetV3: a hidden layer after the pooling
            self.early, self.late = model.features[:9], model.features[9:]
            self.hidden = model.classifier[:2]
            halfway, channels = 48, model.classifier[0].in_features
            width = model.classifier[0].out_features
        else:  # ShuffleNetV2
            stages = [model.conv1, model.maxpool, model.stage2, model.stage3]
            self.early = nn.Sequential(*stages)
            self.late = nn.Sequential(model.stage4, model.conv5)
            self.hidden = nn.Identity()
            halfway = 2 * model.stage3[-1].branch2[-3].out_channels
            channels = width = model.fc.in_features
        self.model = [model]  # not a submodule: its tensors are named once
        # torchvision's momentum of 0.01 keeps statistics of long ago in a short run.
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.05
        self.early_out = nn.Conv2d(halfway, 96, 1)
        self.late_out = nn.Conv2d(channels, 320, 1)
        self.features_out = nn.Linear(width, teacher.classifier.in_features)

    def forward(self, images: Tensor) -> Outputs:
        """Return the standardised maps and features it expects of the teacher."""
        early = self.early(images)
        late = self.late(early)
        hidden = self.hidden(late.mean(dim=(2, 3)))
        return self.early_out(early), self.late_out(late), self.features_out(hidden)

    @torch.no_grad()
    def backbone_state(self, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Tensors in torchvision's layout, without the last layer.

        Weight decay made most hidden units of MobileNetV3 very small. Before their
        activation they get mean 0 over the batches, and those that vary more than twice
        as much as the mean of all get variance 1. The others are divided by that bound,
        and raised to a deviation of a quarter: with less, heads learn slowly from them,
        with more, those for numbers diverge.
        """
        model = self.model[0]
        last = "classifier.3." if hasattr(model, "features") else "fc."
        state = {k: t for k, t in model.state_dict().items() if not k.startswith(last)}
        if hasattr(model, "features"):
            self.eval()
            layer = model.classifier[0]
            maps = (self.late(self.early(images)) for images in batches)
            units = torch.cat([layer(late.mean(dim=(2, 3))) for late in maps])
            spread, mean = units.std(dim=0), units.mean(dim=0)
            least = 1e-6  # of which half precision still holds the inverse
            bound = max(2 * spread.mean().item(), least)
            # Units that hardly vary at all would be noise: none is raised 16 times.
            raised = (4 * spread).clamp_min(max(bound / 16, least))
            spread = spread.clamp_min(bound).minimum(raised)
            state["classifier.0.weight"] = layer.weight / spread[:, None]
            state["classifier.0.bias"] = (layer.bias - mean) / spread
        return state


class Standard(nn.Module):
    """Means and deviations of the teacher's maps and features over crops."""

    def __init__(self):
        super().__init__()
        for part, width in WIDTHS.items():
            self.register_buffer(f"{part}_mean", torch.zeros(width))
            self.register_buffer(f"{part}_scale", torch.ones(width))

    def measure(self, outputs: Outputs) -> None:
        """Take them from the teacher's outputs for some thousand crops."""
        for part, values in zip(WIDTHS, outputs, strict=True):
            rest = [d for d in range(values.ndim) if d != 1]
            spread = values.std(dim=rest)
            getattr(self, f"{part}_mean").copy_(values.mean(dim=rest))
            # Channels that hardly ever answer would be all noise at unit variance.
            least = 0.2 * spread.mean().item()
            getattr(self, f"{part}_scale").copy_(spread.clamp_min(least))

    def apply_to(self, outputs: Outputs) -> Outputs:
        """Standardise the teacher's outputs."""
        found = []
        for part, values in zip(WIDTHS, outputs, strict=True):
            shape = (-1, *(1,) * (values.ndim - 2))
            mean = getattr(self, f"{part}_mean").view(shape)
            found.append((values - mean) / getattr(self, f"{part}_scale").view(shape))
        return tuple(found)


def losses(
    standard: Standard, classifier: nn.Linear, student: Outputs, teacher: Outputs
) -> dict[str, Tensor]:
    """Compare what the student expects with what the teacher sees.

    Returns
    -------
    dict
        ``"early"``, ``"late"`` and ``"features"``: mean squared errors of standardised
        maps and features, about 1 for a student that knows nothing; ``"classes"``:
        Kullback-Leibler divergence at temperature 2; ``"loss"``: their weighted sum.
    """
    wanted = standard.apply_to(teacher)
    found = {
        part: F.mse_loss(guess.float(), values)
        for part, guess, values in zip(WIDTHS, student, wanted, strict=True)
    }
    weight, bias = classifier.weight.float(), classifier.bias.float()
    guessed = student[-1].float() * standard.features_scale + standard.features_mean
    found["classes"] = F.kl_div(
        F.log_softmax(F.linear(guessed, weight, bias) / TEMPERATURE, dim=1),
        F.log_softmax(F.linear(teacher[-1], weight, bias) / TEMPERATURE, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    found["loss"] = sum(WEIGHTS[part] * value for part, value in found.items())
    return found
