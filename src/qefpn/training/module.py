"""The LightningModule: network, loss, optimizer and schedule; what is logged at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from qefpn.data.progress import training_share
from qefpn.data.resume import place_of
from qefpn.implicit import SolveStats, fixed_point_correction
from qefpn.inference.predictor import predict_maps
from qefpn.losses import build_loss
from qefpn.metrics import SaliencyMetrics, to_uint8
from qefpn.metrics.figures import Figures
from qefpn.models import QEFPN, NetworkOutput
from qefpn.models.pyramid import ImplicitPyramid
from qefpn.training.checkpoint import OWN, is_validated, settle_loops
from qefpn.training.evaluation import summary
from qefpn.training.hardware import peak_memory_mb, reset_peak_memory
from qefpn.training.optimizers import OptimizerFactory, parameter_groups, sgd
from qefpn.training.schedule import build_schedule
from qefpn.training.skipping import SkippedSteps
from qefpn.version import __version__

REGULARIZATION: dict[str, Any] = {
    "jacobian_weight": 0.0,  # of ‖J_f‖²/N at the state
    "jacobian_samples": 1,  # of Hutchinson's estimate
    "correction_weight": 0.0,  # of the loss of iterates on the way
    "correction_states": 1,
    "correction_gamma": 0.8,  # weight of an iterate over that of the next
    "spectral_radius_every": 0,  # steps between measurements of J_f's spectral radius; 0: never
}

VALIDATED = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure")


@dataclass(frozen=True)
class Warmup:
    """Weight-tied layers in place of the solver at the beginning.

    Args:
        steps: optimizer steps, from 0 on.
        layers: applications of f_theta, from 1 on.
    """

    steps: int = 3000
    layers: int = 5


class SaliencyModule(pl.LightningModule):
    """Trains, validates, tests and applies a :class:`qefpn.models.QEFPN`.

    Args:
        network: the network, or its arguments as plain values (``QEFPN.options``, which a checkpoint holds).
        loss: maps and masks to a total and its terms, as :class:`qefpn.losses.SaliencyLoss` does; None: the paper's.
        optimizer: makes an optimizer of groups of parameters (:func:`qefpn.training.optimizers.parameter_groups`), such
            as ``functools.partial(torch.optim.AdamW, lr=1e-3)``; None: the paper's SGD.
        scheduler: the factor of the peak rate as a function of the share of training done, in [0, 1], stepped each
            optimizer step (:mod:`qefpn.training.schedule`); or ``functools.partial`` of a scheduler class of torch,
            likewise stepped; None: the paper's.
        warmup: weight-tied layers in place of the solver at the beginning.
        protocol: of the metrics, ``f3net``, ``pysod`` or ``saleval``.
        image_size: side of the pictures in validation and test, kept for whoever loads the checkpoint.
        seed: of the masks of the quasi residual.
        regularization: weights and settings of the pyramid's loss terms, keys of :data:`REGULARIZATION`; None, and
            keys that are not given, for all off.
        max_skipped_steps: a step whose loss or gradient is not finite is skipped; so many in a row end training.

    A checkpoint holds plain values and tensors only: :func:`qefpn.load_model` makes the network of it, and
    ``SaliencyModule.load_from_checkpoint(path)`` a module with the defaults of everything that is not given anew.
    """

    def __init__(
        self,
        network: QEFPN | Mapping[str, Any],
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: Callable[..., Any] | None = None,
        warmup: Warmup | None = None,
        protocol: str = "f3net",
        image_size: int = 352,
        seed: int = 0,
        regularization: Mapping[str, Any] | None = None,
        max_skipped_steps: int = 10,
    ) -> None:
        super().__init__()
        self.network = network if isinstance(network, QEFPN) else QEFPN.of_options(network)
        kept = {"network": self.network.options, "protocol": protocol, "image_size": image_size, "seed": seed}
        self.save_hyperparameters(kept, logger=False)  # loggers get the whole configuration, under its own names
        self.criterion = build_loss("paper") if loss is None else loss
        self.val_metrics = SaliencyMetrics(protocol=protocol)
        self.optimizer = sgd if optimizer is None else optimizer
        self.scheduler = build_schedule("linear") if scheduler is None else scheduler
        self.warmup = Warmup() if warmup is None else warmup
        self._seed = seed
        self._regularization = REGULARIZATION | dict(regularization or {})
        self._output: NetworkOutput | None = None
        self._rate_groups: dict[str, int] = {"lr": 0}  # logged name → optimizer group that shows it
        self.validated_at = -1  # optimizer step of the last validation
        self._skipping = SkippedSteps(max_skipped_steps)
        self.test_names: list[str] = []
        #: name of a test set → what ``SaliencyMetrics.compute`` gives, after ``Trainer.test``
        self.test_scores: dict[str, dict[str, Tensor]] = {}
        #: what a test measures beside the figures that are always there, as ``metrics.choose`` takes it
        self.tests_for: str | Sequence[str] | Figures = "sod"
        self._test_metrics: list[SaliencyMetrics] = []
        #: whether loggers get the figures of a test; not where a callback writes them
        self.logs_tests = True
        #: maps of a set's batch that need not be made again, where a callback has them
        self.kept_maps: Callable[[str, dict[str, Any]], list[np.ndarray] | None] | None = None

    def unrolled_layers(self) -> int | None:
        """Weight-tied layers of the warm-up, or None when the solver has taken over."""
        return self.warmup.layers if self.global_step < self.warmup.steps else None

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        return self.network(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        place = place_of(self.trainer)
        validated = self.validated_at == self.global_step
        settle_loops(checkpoint, place, self.trainer, validated=validated)
        data = checkpoint.get(type(getattr(self.trainer, "datamodule", None)).__qualname__)
        if isinstance(data, dict) and "batch" in data:
            data.update(place._asdict())
        checkpoint[OWN] = checkpoint.get(OWN, {}) | {
            "version": __version__,
            "place": list(place),
            "validated": validated,
            "skipped_steps": self._skipping.total,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._skipping.total = checkpoint.get(OWN, {}).get("skipped_steps", 0)
        if is_validated(checkpoint):
            self.validated_at = int(checkpoint["global_step"])

    def on_train_start(self) -> None:
        reset_peak_memory(self.device)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        # Each batch has a seed of its own (dropout, stochastic depth), so that a resumed run draws what an
        # unbroken one would: the state of the global generator depends on the loaders made since.
        place = (self._seed * 4_093 + self.current_epoch) * 1_000_003 + batch_idx
        # Lightning's own count of steps, by which loggers go, is off by one after some resumes.
        if self._trainer is not None:
            self._trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step
        torch.manual_seed((place * 1_021 + self.global_rank) % 2**63)
        if self._trainer is None or batch_idx % self._trainer.accumulate_grad_batches == 0:
            self._skipping.begin(self)
        self._skipping.pictures += batch.get("name", [])

    def undo_step(self) -> None:
        """Put the buffers back to where they were before the step at hand: its forward pass moved the statistics of
        batch norms."""
        self._skipping.undo(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # which looks for overflow itself
        if not self._skipping.finite(self, check_gradients=not scaled):
            self._skipping.skip(self, optimizer)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        # A key a picture and step: a mask does not depend on the batch, the rank or the number of workers. Where a
        # loader of somebody's own does not number its pictures, masks are drawn as dropout would.
        index = batch.get("index")
        keys = None if index is None else index + (self.global_step + 1) * 1_000_003 + self._seed * 7_919
        corrected = self._regularization["correction_weight"] > 0
        states = self._regularization["correction_states"] if corrected else 0
        layers = self.unrolled_layers()
        output = self.network.run(batch["image"], keys=keys, unroll=layers, intermediate=states)
        loss, terms = self.criterion(
            output.logits, batch["mask"], side_logits=output.side_logits, edge_logits=output.edge_logits
        )
        self._output = output
        size = len(batch["image"])
        loss = loss + self._regularized(output, batch["mask"], size, terms)
        logged = self._over_ranks({"loss": loss} | {f"loss_{name}": value for name, value in terms.items()})
        self._skipping.losses.append(logged["loss"].detach())
        if self._skipping.total:
            self.log("skipped_steps", float(self._skipping.total))
        self.log("loss", logged.pop("loss"), prog_bar=True, batch_size=size)
        self.log_dict(logged, batch_size=size)
        groups = self.trainer.optimizers[0].param_groups
        for name, index in self._rate_groups.items():
            self.log(name, groups[index]["lr"], prog_bar=name == "lr")
        self._log_place(self.global_step, self.current_epoch)
        if output.solution is not None:
            self.log("unrolled_layers", float(layers or 0))
            self._log_solve("solver", output.solution.stats, size)
        return loss

    def _over_ranks(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars of this rank's share of a batch as means over the whole batch, in one exchange."""
        if self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(torch.stack([value.detach().float() for value in values.values()]))
        assert isinstance(gathered, Tensor)
        return dict(zip(values, gathered.mean(dim=0), strict=True))  # shares of a batch are equal

    def _regularized(self, output: NetworkOutput, mask: Tensor, size: int, terms: dict[str, Tensor]) -> Tensor | float:
        """The weighted loss terms of the pyramid that are on; added to ``terms`` without their weights."""
        options, pyramid = self._regularization, self.network.pyramid
        if not isinstance(pyramid, ImplicitPyramid):
            return 0.0
        total: Tensor | float = 0.0
        if options["jacobian_weight"] > 0:
            term = pyramid.jacobian_regularization(output.state, output.injection, options["jacobian_samples"])
            terms["jacobian"] = term.detach()
            total = total + options["jacobian_weight"] * term
        if output.intermediate_logits:
            edges = None if output.edge_logits is None else output.edge_logits.detach()  # their loss is in already
            losses = [self.criterion(logits, mask, edge_logits=edges)[0] for logits in output.intermediate_logits]
            term = fixed_point_correction(losses, options["correction_gamma"])
            terms["correction"] = term.detach()
            total = total + options["correction_weight"] * term
        every = options["spectral_radius_every"]
        if every > 0 and self.global_step % every == 0:
            radius = pyramid.spectral_radius(output.state, output.injection)
            self.log_dict({"spectral_radius": radius.mean(), "spectral_radius_max": radius.max()}, batch_size=size)
        return total

    def _log_place(self, step: int, epoch: int) -> None:
        self.log("step", float(step))
        self.log("epoch", float(epoch))

    def on_after_backward(self) -> None:
        if self._output is not None and self._output.solution is not None:
            stats = self._output.solution.backward_stats
            if stats is not None:
                self._log_solve("backward", stats, len(stats.steps))
            fallbacks = self._output.solution.fallbacks
            if fallbacks is not None:
                self.log("backward_fallbacks", fallbacks.float().mean(), batch_size=len(fallbacks))
        self._output = None  # frees the graph

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Any], batch_idx: int) -> None:
        peak = peak_memory_mb(self.device)
        if peak is not None:
            self.log("memory_mb", peak)

    def _log_solve(self, name: str, stats: SolveStats, size: int) -> None:
        steps, residual = stats.steps.float(), stats.relative_residual.float()
        self.log(f"{name}_steps", steps.mean(), prog_bar=name == "solver", batch_size=size)
        self.log(f"{name}_residual", residual.mean(), prog_bar=name == "solver", batch_size=size)
        self.log_dict(
            {
                f"{name}_norm": stats.norm.float().mean(),
                f"{name}_steps_max": steps.max(),
                f"{name}_residual_max": residual.max(),
                f"{name}_evaluations": stats.evaluations.float().mean(),
                f"{name}_converged": stats.converged.float().mean(),
            },
            batch_size=size,
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """``maps``, uint8 (H, W) each, for callbacks that show some. During the warm-up of the network that is being
        trained, the unrolled one, so that checkpoints are compared by what training made them for."""
        maps = predict_maps(self.network, batch["image"], batch["size"], self.unrolled_layers())
        self.val_metrics.update(maps, [torch.as_tensor(mask, device=self.device) for mask in batch["mask"]])
        return {"maps": maps}

    def on_test_start(self) -> None:
        loaders = self.trainer.test_dataloaders
        count = len(loaders) if isinstance(loaders, (list, tuple)) else 1
        self.test_names = list(getattr(getattr(self.trainer, "datamodule", None), "test_names", ()))
        if len(self.test_names) != count:  # loaders of somebody's own
            self.test_names = ["test"] if count == 1 else [f"test_{number}" for number in range(count)]
        protocol = self.val_metrics.protocol
        self._test_metrics = [SaliencyMetrics(protocol, self.tests_for).to(self.device) for _ in self.test_names]
        self.test_scores = {}

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """``maps``, uint8 (H, W) each, and ``records``, the scores of each picture; where the figures asked for are not
        of quantized maps, the scores of the network's floats.

        In float32 whatever the trainer's precision, as ``qefpn evaluate`` scores a checkpoint.
        """
        kept = None if self.kept_maps is None else self.kept_maps(self.test_names[dataloader_idx], batch)
        metric = self._test_metrics[dataloader_idx]
        maps = self._maps(batch, metric.figures.quantize) if kept is None else kept
        masks = [torch.as_tensor(mask, device=self.device) for mask in batch["mask"]]
        records = metric.score_batch(maps, masks)
        return {"maps": [to_uint8(one) for one in maps], "records": records}

    def on_test_epoch_end(self) -> None:
        self.test_scores = {}
        for name, metric in zip(self.test_names, self._test_metrics, strict=True):
            self.test_scores[name] = metric.compute()
            for key, value in summary(self.test_scores[name]).items():
                if key != "images":
                    self.log(f"{name}/{key}", value, rank_zero_only=False, logger=self.logs_tests)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> list[np.ndarray]:
        """Saliency maps, uint8 (H, W) each, at the pictures' own sizes; in float32."""
        return self._maps(batch)

    def _maps(self, batch: dict[str, Any], quantize: bool = True) -> list[np.ndarray]:
        with torch.autocast(self.device.type, enabled=False):
            if quantize:
                return predict_maps(self.network, batch["image"], batch["size"])
            return predict_maps(self.network, batch["image"], batch["size"], quantize=False)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:  # of a few pictures, before the first step
            self.val_metrics.reset()
            return
        self.validated_at = self.global_step
        scores = self.val_metrics.compute()
        self.val_metrics.reset()
        place = place_of(self.trainer)  # Lightning counts an epoch that a limit cut short as done, unless it is resumed
        epoch = max(0, place.epoch - (place.batch == 0))
        self._log_place(max(0, self.global_step - 1), epoch)  # beside the step that led here
        for name in VALIDATED:
            self.log(f"val_{name}", float(scores[name]), prog_bar=name in ("mae", "max_f"), rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer(parameter_groups(self.network))
        for index, group in reversed(list(enumerate(optimizer.param_groups))):
            if (part := group.get("part")) in ("pyramid", "backbone"):
                self._rate_groups[f"lr_{part}"] = index
        scheduler: Any = self.scheduler
        if isinstance(getattr(scheduler, "func", scheduler), type):  # a class of torch
            scheduler = scheduler(optimizer)
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: self.scheduler(self.progress()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def progress(self) -> float:
        """Share of training done, in [0, 1]: of its steps, or of its time where that ends it sooner."""
        trainer = self._trainer
        if trainer is None:
            return 0.0
        return training_share(trainer, self.global_step)
