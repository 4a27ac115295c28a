"""DistributedDataParallel: averaged gradients equal those of one process on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from qefpn.implicit import Broyden, ImplicitAdjoint, QuasiEquilibrium, fixed_point


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.head = (nn.Linear(8, 8).double() for _ in range(3))
        nn.init.orthogonal_(self.inner.weight, gain=0.6)

    def forward(self, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        x = self.outer(x)
        solution = fixed_point(
            lambda z, x: torch.tanh(self.inner(z) + x),
            torch.zeros_like(x),
            (x,),
            solver=Broyden(60, 1e-13),
            residual=QuasiEquilibrium(p=0.1),
            adjoint=ImplicitAdjoint(),
            keys=keys,
        )
        return self.head(solution.value)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn(8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, target, torch.arange(8)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    net = nn.parallel.DistributedDataParallel(Net())
    x, target, keys = (part[rank * 4 : rank * 4 + 4] for part in batch())
    for _ in range(2):  # the second pass goes through rebuilt buckets
        net.zero_grad()
        (net(x, keys) - target).square().mean().backward()
    torch.save([parameter.grad for parameter in net.module.parameters()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_to_one(tmp_path: Path) -> None:
    mp.start_processes(worker, args=(str(tmp_path),), nprocs=2, start_method="fork")
    net = Net()
    x, target, keys = batch()
    (net(x, keys) - target).square().mean().backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for parameter, one, two in zip(net.parameters(), first, second, strict=True):
        assert torch.equal(one, two)
        assert float((one - parameter.grad).norm() / parameter.grad.norm()) < 1e-6
