"""Make the weights that sklearn_dl ships: distil a small student from a teacher.

The student sees crops of the photographs in scikit-image and scikit-learn, and images
made by formula, and learns to give the features that the teacher, torchvision's
MobileNetV2 with ImageNet weights, has for them::

    pip install sklearn_dl scikit-image
    python tools/builtin_weights/pretrain.py --out run --crops 3e6

No other image is used. An interrupted run goes on where it last saved (each few
minutes), also on another machine; ``run/log.csv`` holds the progress, and
``run/mobilenet_v3_small.safetensors`` the best student so far, by the loss on crops of
two photographs and of drawn images that it does not learn from. The rate falls to zero
over the last quarter; to learn longer than was planned, put ``run/steady.pt``, from
before the fall, in the place of ``run/state.pt``, and give more ``--crops``.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path
from pickle import UnpicklingError

import torch
from crops import VALIDATION_PHOTOS, Crops, photographs
from distillation import MEAN, STD, Standard, Student, Teacher, losses
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision import models

from sklearn_dl._runtime import keep_large_blocks, resolve_device, resolve_precision
from sklearn_dl.backbones import Preprocessing

STUDENTS = ("mobilenet_v3_small", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0")
N_VALIDATION = 1536  # crops
SEED_OF_VALIDATION = 10**9


def main() -> None:
    """Train until the crops are seen."""
    args = parse_arguments()
    keep_large_blocks()
    device = resolve_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args, device)
    run.resume()
    run.train()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--teacher",
        default="DEFAULT",
        help="a state dict of mobilenet_v2, or DEFAULT: IMAGENET1K_V1, downloaded",
    )
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--student", default=STUDENTS[0], choices=STUDENTS, help="the network to make"
    )
    parser.add_argument("--crops", type=float, default=3e6, help="to see in all")
    parser.add_argument("--batch", type=int, default=64, help="crops a step, from 16")
    parser.add_argument("--size", type=int, default=128, help="of a crop, in pixels")
    parser.add_argument(
        "--small", type=int, default=96, help="of a crop in the first part, in pixels"
    )
    parser.add_argument(
        "--small-part", type=float, default=0.5, help="the part of small crops, 0 to 1"
    )
    parser.add_argument("--rate", type=float, default=3e-3, help="of AdamW")
    parser.add_argument(
        "--decay", type=float, default=0.25, help="the last part, of falling rates"
    )
    parser.add_argument("--drawn", type=int, default=1024, help="drawn images at hand")
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    args = parser.parse_args()
    for name, least in (("batch", 16), ("size", 32), ("small", 32), ("drawn", 32)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be {least} or more")
    if not (args.crops >= args.batch and args.rate > 0):
        parser.error("--crops must be a batch or more, and --rate above 0")
    if not (0 < args.decay <= 1 and 0 <= args.small_part <= 1):
        parser.error("--decay must lie between 0 and 1, and --small-part from 0 to 1")
    if args.teacher != "DEFAULT" and not Path(args.teacher).is_file():
        parser.error(f"--teacher: there is no file {args.teacher}")
    return args


def load_teacher(weights: str, device: torch.device) -> Teacher:
    """Load the teacher in the fastest precision of the device."""
    try:
        if weights == "DEFAULT":
            model = models.mobilenet_v2(weights="IMAGENET1K_V1")
        else:
            model = models.mobilenet_v2()
            state = torch.load(weights, map_location="cpu", weights_only=True)
            state = {name: value.float() for name, value in state.items()}
            model.load_state_dict(state)
    except (OSError, RuntimeError, AttributeError, UnpicklingError) as error:
        raise SystemExit(
            f"pretrain: --teacher {weights} can't be had; it must be a state "
            f"dict of mobilenet_v2, or DEFAULT, which torchvision downloads: {error}"
        ) from error
    dtype = resolve_precision("auto", device)
    teacher = Teacher(model).to(device, dtype)
    return teacher.to(memory_format=torch.channels_last)


class Run:
    """A student in training, and what is needed to go on with it."""

    def __init__(self, args: argparse.Namespace, device: torch.device):
        torch.manual_seed(args.seed)
        self.args, self.device = args, device
        self.teacher = load_teacher(args.teacher, device)
        self.student = Student(args.student, self.teacher).to(device)
        self.student.to(memory_format=torch.channels_last)
        self.standard = Standard().to(device)
        decayed = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": 0.02},
            {"params": others, "weight_decay": 0.0},
        ]
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(groups, lr=args.rate, fused=fused)
        self.scale = torch.tensor(STD, device=device)[:, None, None]
        self.shift = torch.tensor(MEAN, device=device)[:, None, None]
        self.seen, self.seconds, self.best = 0, 0.0, float("inf")
        self.state_file = args.out / "state.pt"
        self.target = args.out / f"{args.student}.safetensors"
        # On a GPU the student learns in bfloat16; on a CPU its small convolutions
        # are faster in float32.
        fastest = resolve_precision("auto", device)
        self.half = device.type == "cuda" and fastest == torch.bfloat16

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator of the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in [0, 1] as the networks take them."""
        images = (images - self.shift) / self.scale
        return images.contiguous(memory_format=torch.channels_last)

    def resume(self) -> None:
        """Go on where the last run saved, or measure the teacher and begin."""
        photos = photographs()
        learnt = [photos[name] for name in photos if name not in VALIDATION_PHOTOS]
        kept = [photos[name] for name in photos if name in VALIDATION_PHOTOS]
        larger = self.args.size + self.args.size // 8  # drawn images are cut from
        # On the CPU, so that they are the same on each machine.
        generator = torch.Generator().manual_seed(SEED_OF_VALIDATION)
        unseen = Crops(kept, generator, larger, 256)
        self.validation = [
            unseen.batch(128, self.args.size, False) for _ in range(N_VALIDATION // 128)
        ]
        if self.state_file.exists():
            state = torch.load(
                self.state_file, map_location=self.device, weights_only=True
            )
            self.student.load_state_dict(state["student"])
            self.standard.load_state_dict(state["standard"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seen, self.seconds = state["seen"], state["seconds"]
            self.best = self.exported_loss()
            print(f"going on after {self.seen:,} crops")
        # Other crops than before the interruption, on any machine.
        generator = self.generator(self.args.seed + self.seen)
        self.crops = Crops(learnt, generator, larger, self.args.drawn)
        if not self.seen:
            outputs = [
                self.teacher(self.normalize(self.crops.batch(128, self.args.size)))
                for _ in range(32)
            ]
            together = [torch.cat(parts) for parts in zip(*outputs, strict=True)]
            self.standard.measure(together)

    def rate(self) -> float:
        """Return the rate: warm-up, constant, then falling to zero in a line."""
        done = self.seen / self.args.crops
        warm = min(1.0, (self.seen + 1) / (300 * self.args.batch))
        falling = min(1.0, (1 - done) / self.args.decay)
        return self.args.rate * warm * max(falling, 0.0)

    def step(self) -> dict[str, torch.Tensor]:
        """Learn from one batch."""
        small = self.seen < self.args.small_part * self.args.crops
        size = self.args.small if small else self.args.size
        images = self.normalize(self.crops.batch(self.args.batch, size))
        seen = self.teacher(images)
        self.student.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            guessed = self.student(images)
        found = losses(self.standard, self.teacher.classifier, guessed, seen)
        self.optimizer.zero_grad(set_to_none=True)
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimizer.step()
        self.seen += len(images)
        return {name: value.detach() for name, value in found.items()}

    def train(self) -> None:
        """Learn until the crops are seen, saving now and then."""
        if self.seen >= self.args.crops:
            print("all crops are seen: give more --crops, to go on")
            if not self.target.exists():
                self.export()
            return
        start = last = time.perf_counter()
        before, noted = self.seconds, []
        while self.seen < self.args.crops:
            noted.append(self.step()["loss"])
            now = time.perf_counter()
            done = self.seen >= self.args.crops
            if now - last >= self.args.save_every or done:
                self.seconds = before + now - start
                self.save(torch.stack(noted).mean().item())
                last, noted = time.perf_counter(), []

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the losses on crops that are not learnt from."""
        self.student.eval()
        parts = []
        for images in self.validation:
            images = self.normalize(images.to(self.device))
            found = losses(
                self.standard,
                self.teacher.classifier,
                self.student(images),
                self.teacher(images),
            )
            parts.append(torch.stack(list(found.values())))
        means = torch.stack(parts).mean(dim=0).tolist()
        return dict(zip(found, means, strict=True))

    def save(self, training: float) -> None:
        """Validate, log, keep the best student, and all that is needed to go on."""
        found = self.validate()
        row = {"crops": self.seen, "seconds": round(self.seconds)}
        row |= {"rate": round(self.rate(), 6), "training": round(training, 4)}
        row |= {name: round(value, 4) for name, value in found.items()}
        log = self.args.out / "log.csv"
        fresh = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if found["loss"] < self.best:
            self.best = found["loss"]
            self.export()
        state = {
            "student": self.student.state_dict(),
            "standard": self.standard.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "seen": self.seen,
            "seconds": self.seconds,
        }
        write(self.state_file, lambda part: torch.save(state, part))
        if self.seen < self.args.crops * (1 - self.args.decay):
            write(self.args.out / "steady.pt", lambda part: torch.save(state, part))

    def export(self) -> None:
        """Write the student in float16, with the preprocessing of its images."""
        batches = (
            self.normalize(self.crops.batch(128, self.args.size)) for _ in range(16)
        )
        state = {
            name: value.half() if value.is_floating_point() else value
            for name, value in self.student.backbone_state(batches).items()
        }
        state = {name: value.cpu().contiguous() for name, value in state.items()}
        size = self.args.size
        preprocessing = Preprocessing(
            resize_size=round(size * 8 / 7),
            crop_size=(size, size),
            mean=MEAN,
            std=STD,
        )
        metadata = {
            "preprocessing": json.dumps(preprocessing.to_dict()),
            "loss": str(self.best),  # with the file, so that the two can't part
        }
        write(self.target, lambda part: save_file(state, part, metadata))

    def exported_loss(self) -> float:
        """Return the loss of the student that is written, infinite without one."""
        if not self.target.exists():
            return float("inf")
        with safe_open(self.target, framework="pt") as file:
            return float((file.metadata() or {}).get("loss", "inf"))


def write(path: Path, save) -> None:
    """Let `save` write a file beside `path`, and put it there when it is whole."""
    part = path.with_suffix(path.suffix + ".part")
    save(part)
    part.chmod(0o644)  # safetensors makes files for their owner only
    os.replace(part, path)


if __name__ == "__main__":
    main()
