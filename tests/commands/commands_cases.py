"""A small model on disk, images to ask it about, and the command line."""

import numpy as np
from PIL import Image

from sklearn_dl import ImageClassifier
from sklearn_dl.__main__ import main

SMALL = {"weights": None, "image_size": 32, "random_state": 0, "cache": None}
NETWORK = "squeezenet1_1"
RNG = np.random.default_rng(0)
DARK = RNG.integers(0, 100, (6, 32, 32, 3), "uint8")
LIGHT = RNG.integers(156, 256, (6, 32, 32, 3), "uint8")


def write_folder(folder, n=6):
    """Write dark and light images, each in the folder of its class."""
    for name, images in (("dark", DARK), ("light", LIGHT)):
        (folder / name).mkdir(parents=True)
        for k, image in enumerate(images[:n]):
            Image.fromarray(image).save(folder / name / f"{k}.png")
    return folder


def write_broken(path):
    path.write_bytes((path.parent / "0.png").read_bytes()[:60])
    return path


def small_classifier(**parameters):
    model = ImageClassifier(NETWORK, **{**SMALL, "max_epochs": 3, **parameters})
    y = np.repeat(["dark", "light"], 6)
    return model.fit(np.concatenate([DARK, LIGHT]), y)


def command(*arguments):
    return main([str(argument) for argument in arguments])


def train_small(data, *more):
    small = ("--backbone", NETWORK, "--epochs", 2)
    parameters = ["weights=None", "image_size=32", "device=cpu"]
    for parameter in parameters[int("--weights" in more) :]:
        small += ("--set", parameter)
    return command("train", data, *small, *more)
