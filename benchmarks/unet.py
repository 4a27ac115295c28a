"""The peer that `experiment=small` has to beat: a plain 1.6 M-parameter U-Net, from scratch, for the same minutes.

python benchmarks/unet.py data.root=DIR minutes=15 test=ECSSD,DUTS-TE

At 112 px with AdamW, BCE + IoU and flips. Prints the figures of protocol f3net for each test set.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.data import SaliencyDataModule
from qefpn.inference.predictor import to_maps
from qefpn.losses import build_loss
from qefpn.metrics import SaliencyMetrics
from qefpn.models.backbone import IMAGENET_MEAN, IMAGENET_STD


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """uint8 images (B, 3, H, W) to logits (B, 1, H, W); five levels below a strided stem."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128, 192)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, stride=2, padding=1)
        self.down = nn.ModuleList(double_conv(a, b) for a, b in zip((widths[0], *widths), widths, strict=False))
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(double_conv(deep + fine, fine) for deep, fine in pairs)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        x, skips = self.stem((images / 255 - mean) / std), []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        return F.interpolate(self.head(x), size=images.shape[-2:], mode="bilinear", align_corners=False)


def main(arguments: list[str]) -> None:
    """Train for the minutes given, then score."""
    options = {"minutes": "15", "test": "ECSSD,DUTS-TE", "size": "112", "batch": "16", "lr": "2e-3"}
    options |= dict(argument.split("=", 1) for argument in arguments)
    if "data.root" not in options:  # `make bench` has no photographs
        print(__doc__)
        return
    torch.manual_seed(0)
    size = int(options["size"])
    data = SaliencyDataModule(
        root=options["data.root"],
        train=["DUTS-TR"],
        test=options["test"].split(","),
        batch_size=int(options["batch"]),
        num_workers=0,
        image_size=size,
        scales=[size],
        val_fraction=0.0,
        cache="ram",
        cache_size=size + 16,
    )
    data.setup("fit")
    network = UNet()
    optimizer = torch.optim.AdamW(network.parameters(), float(options["lr"]), weight_decay=1e-4)
    criterion = build_loss("no_edges")
    loader, seconds, start, seen, epoch = data.train_dataloader(), 60 * float(options["minutes"]), time.time(), 0, 0
    network.train()
    share = 0.0
    while share < 1:
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            share = (time.time() - start) / seconds
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = float(options["lr"]) * min(1.0, share * 20 + 0.05) * (1 - share)
            loss, _ = criterion(network(batch["image"]), batch["mask"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(batch["index"])
        epoch += 1
    print(
        f"{seen} pictures, {seen / seconds:.1f} a second, {sum(p.numel() for p in network.parameters()):,} parameters"
    )
    network.eval()
    data.setup("test")
    for name, test_loader in zip(data.test_names, data.test_dataloader(), strict=True):
        metric = SaliencyMetrics(protocol="f3net")
        with torch.inference_mode():
            for batch in test_loader:
                metric.update(to_maps(network(batch["image"]), batch["size"]), batch["mask"])
        values = metric.compute()
        print(f"{name}: MAE {values['mae']:.3f}  mean F {values['mean_f']:.3f}  max F {values['max_f']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
