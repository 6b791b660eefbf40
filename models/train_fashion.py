"""Train the Fashion-MNIST network and pack its pictures into ``models/weights``.

Run it as ``python -m burnish.models.train_fashion FOLDER``, where FOLDER holds the unpacked Debian
package ``dataset-fashion-mnist`` (``apt-get download``, then ``dpkg-deb -x``; no root needed).
The epochs are fixed in advance: the test pictures choose nothing.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from burnish.models.fashion import PICTURES, WEIGHTS, FashionCNN, scaled

EPOCHS, BATCH, PEAK = 5, 128, 2e-3
TESTED, CALIBRATES = 2000, 256


def main() -> None:
    folder = Path(sys.argv[1]) / "usr/share/datasets/fashion-mnist"
    images, labels = read(folder, "train")
    tested, truth = read(folder, "t10k")
    network = train(images, labels)
    with torch.inference_mode():
        guesses = torch.cat([network(scaled(part)).argmax(1) for part in tested.split(500)])
    right = (guesses == truth).float()
    print(
        f"accuracy on all {len(truth)}: {right.mean():.4f}; first 2,000: {right[:2000].mean():.4f}"
    )
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, WEIGHTS)
    pack = {"test.images": tested[:TESTED], "test.labels": truth[:TESTED]}
    pack["calibration.images"] = images[:CALIBRATES]
    save_file({name: value.contiguous() for name, value in pack.items()}, PICTURES)


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """``[count, 28, 28]`` and ``[count]``, both uint8, from the original IDX files."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return torch.tensor(images), torch.tensor(np.frombuffer(labels, np.uint8, offset=8))


def train(images: Tensor, labels: Tensor) -> FashionCNN:
    """AdamW under one-cycle learning rates; half the pictures are mirrored."""
    torch.manual_seed(0)
    network = FashionCNN()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images)).split(BATCH)
        for chosen in order[: len(images) // BATCH]:
            batch = scaled(images[chosen])
            mirrored = torch.rand(len(batch)) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
            loss = F.cross_entropy(network(batch), labels[chosen].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


if __name__ == "__main__":
    main()
