"""The part of a net that is not trained, or not yet."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.pixels.feature_cache import Extractor
from pet_cifar.errors import InputError, check_positive, did_you_mean

if TYPE_CHECKING:
    from pet_cifar.training.classifier import ImageClassifier

log = logging.getLogger(__name__)

NOTHING, ALL = "nothing", "all"

# run after a frozen base they are as fixed as the base
_FIXED_LAYERS = (nn.AdaptiveAvgPool2d, nn.Flatten)


def stages_of(base: nn.Module) -> list[str]:
    """Names of the parts of a base in the order in which they were built; a sequence counts as its parts."""

    def apart(name: str, module: nn.Module) -> Iterator[str]:
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module):
            for child, layer in module.named_children():
                yield from apart(f"{name}.{child}" if name else child, layer)
        else:
            yield name

    if isinstance(base, nn.Sequential):
        return list(apart("", base))
    return [stage for name, module in base.named_children() for stage in apart(name, module)]


def ends_of(stages: Sequence[str]) -> dict[str, int]:
    """How many stages there are up to the end of each name, ``blocks`` and ``blocks.4`` alike."""
    ends: dict[str, int] = {}
    for count, stage in enumerate(stages, start=1):
        words = stage.split(".")
        for length in range(1, len(words) + 1):
            ends[".".join(words[:length])] = count
    return ends


def is_chain(base: nn.Module, stages: Sequence[str], example: Tensor) -> bool:
    """Whether the stages, one after the other, compute what the base computes."""
    if isinstance(base, nn.Sequential):
        return True
    training = base.training
    base.eval()
    try:
        with torch.no_grad():
            wanted = base(example)
            found = example
            for stage in stages:
                found = base.get_submodule(stage)(found)
    # a stage that takes or gives something else fails in its own way
    except Exception:
        return False
    finally:
        base.train(training)
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    return torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())


class Freezing:
    """The first stages of a base stay as they are: in evaluation, without gradients, not in the optimizer.

    Later epochs may free some of them. What an epoch trains follows from its number alone, so that a run resumes
    exactly; all that is ever trained is in the optimizer from the start, under the same schedule. (Lightning's
    ``BackboneFinetuning`` adds parameters later, which a schedule of steps and the exchange of gradients between
    processes then leave out, and lets frozen batch norms go on averaging, Lightning issue 21652.)

    Args:
        base: from normalized pictures to features.
        head: from features to logits.
        stages: names of the base's parts, in the order of the forward pass.
        ends: names of blocks, and how many stages there are up to the end of each.
        freeze_until: ``nothing``, the name of the last block that is frozen, or ``all``.
        unfreeze: from which epoch on, counted from 0, less is frozen: until which block, or ``nothing``.
        cache_features: compute what is frozen in all epochs once for every picture, and train on its features.
        feature_views: how many augmented views of every training picture are kept, used by the epochs in turn.
        max_cache_gigabytes: that all features kept beside the data may take, in 10^9 bytes.
        base_lr_factor: of the base's learning rate.
        example: such as the base takes, shape (1, C, H, W): stages that do not make up the base one after the other
            can only be cut off all together.

    Raises:
        InputError: a block that is not there, or options that do not go together.

    Attributes:
        fixed: how many stages are frozen in all epochs.
        frozen: how many are frozen now.
    """

    def __init__(
        self,
        base: nn.Module,
        head: nn.Sequential,
        stages: Sequence[str],
        ends: Mapping[str, int],
        freeze_until: str,
        unfreeze: Mapping[int, str] | None,
        cache_features: bool,
        feature_views: int,
        max_cache_gigabytes: float,
        base_lr_factor: float,
        example: Tensor,
    ) -> None:
        self.base = base
        self.head = head
        self.stages = stages
        self.ends = {NOTHING: 0, **ends, ALL: len(stages)}
        self.courses = [(0, self._count("freeze_until", freeze_until))]
        for epoch, until in sorted((unfreeze or {}).items()):
            count = self._count(f"unfreeze: epoch {epoch}", until)
            if epoch < 1:
                raise InputError(f"unfreeze: epoch {epoch}; the first epoch, 0, is freeze_until's; give 1 or more")
            if count >= self.courses[-1][1]:
                raise InputError(f"unfreeze: epoch {epoch}: {until} frees nothing more than what was free before")
            self.courses.append((epoch, count))
        self.fixed = self.courses[-1][1]
        self.cache_features = cache_features
        self.feature_views = feature_views
        self.base_lr_factor = base_lr_factor
        self.max_cache_gigabytes = max_cache_gigabytes
        check_positive("base_lr_factor", base_lr_factor, "; --model.freeze_until all trains no base")
        if feature_views < 1:
            raise InputError(f"feature_views is {feature_views}; it is 1 or more")
        if feature_views > 1 and not cache_features:
            raise InputError(
                f"feature_views is {feature_views}, but no features are kept; give --model.cache_features true"
            )
        if cache_features and not self.fixed:
            why = (
                f"unfreeze frees all at epoch {self.courses[-1][0]}"
                if len(self.courses) > 1
                else "freeze_until is nothing"
            )
            raise InputError(
                f"cache_features is true, but nothing stays frozen to the end: {why}; keep a block frozen, or give "
                "--model.cache_features false"
            )
        # costs a pass or two, and only a cut in the middle needs to know
        if cache_features and self.fixed < len(stages) and not is_chain(base, stages, torch.rand_like(example)):
            raise InputError(
                f"cache_features: this net cannot be cut after {freeze_until}; give --model.freeze_until all, or "
                "--model.cache_features false"
            )
        self._trainable = {id(parameter) for parameter in base.parameters() if parameter.requires_grad}
        self._freeze(self.fixed)

    def _modules(self, start: int, stop: int) -> list[nn.Module]:
        # by name: --trainer.sync_batchnorm puts others in their places
        return [self.base.get_submodule(name) for name in self.stages[start:stop]]

    def _count(self, option: str, name: str) -> int:
        if name not in self.ends:
            # the parts of blocks may be named too, and are too many to list
            listed = [one for one in self.ends if one.count(".") < 2]
            near = did_you_mean(name, self.ends)
            raise InputError(f"{option} {name}: there is no such block{near}; it is one of {', '.join(listed)}")
        return self.ends[name]

    def setup(self, module: "ImageClassifier", stage: str) -> None:
        """Starts anew, and asks the data for features in place of pictures where they are wanted.

        Args:
            module: the net, on the way into its trainer.
            stage: such as ``fit``.

        Raises:
            InputError: options that do not go with the trainer's or the data's.
        """
        trainer = module.trainer
        self.free()
        waits = getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)
        if stage == "fit" and len(self.courses) > 1 and trainer.world_size > 1 and not waits:
            raise InputError(
                "unfreeze on several processes: they would wait for gradients of what is still frozen; give "
                "--trainer.strategy ddp_find_unused_parameters_true"
            )
        late = [epoch for epoch, _ in self.courses if 0 <= (trainer.max_epochs or -1) <= epoch]
        if stage == "fit" and late and trainer.is_global_zero:
            log.warning("unfreeze: epoch %d never comes, the run has %d epochs", late[0], trainer.max_epochs)
        data = getattr(trainer, "datamodule", None)
        # a trial run of a few batches does not wait for all features
        if not self.cache_features or not isinstance(data, ImageDataModule) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.feature_views > 1 and data.augment is None:
            raise InputError(
                f"feature_views is {self.feature_views}, but all views would be the same; give --data.augment, such as "
                "--data.augment.flip true, or --model.feature_views 1"
            )

        def compute(image: Tensor) -> Tensor:
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                return self.before(module.normalized(image))

        def extractor() -> Extractor:
            # only now, when a checkpoint has brought its weights
            key = f"{self.key()} {module.mean.tolist()} {module.std.tolist()} {trainer.precision}"
            return Extractor(compute, key, self.feature_views, self.max_cache_gigabytes)

        data.extractor = extractor

    def free(self) -> None:
        """Frees all that any epoch trains: what an optimizer is made for."""
        self._freeze(self.fixed)

    def start_epoch(self, epoch: int) -> None:
        """Freezes what this epoch, counted from 0, does not train."""
        before = self.frozen
        self._freeze([count for start, count in self.courses if start <= epoch][-1])
        if len(self.courses) > 1 and self.frozen != before:
            trained = sum(
                one.numel() for net in (self.base, self.head) for one in net.parameters() if one.requires_grad
            )
            rank_zero_info(f"epoch {epoch}: {trained:,} parameters of base and head are trained")

    def _freeze(self, count: int) -> None:
        self.frozen = count
        inside = {id(parameter) for module in self._modules(0, count) for parameter in module.parameters()}
        if count:  # such as a class token
            inside |= {id(parameter) for parameter in self.base.parameters(recurse=False)}
        for parameter in self.base.parameters():
            if id(parameter) in self._trainable:
                parameter.requires_grad_(id(parameter) not in inside)
        self.base.train(self.head.training)
        self.keep_frozen_in_eval()

    def keep_frozen_in_eval(self) -> None:
        """Puts what is frozen into evaluation, after the whole net was put into training."""
        if self.frozen == len(self.stages):
            self.base.eval()
        for module in self._modules(0, self.frozen):
            module.eval()

    # The cut: everything before it is the same in all epochs

    def _lead(self) -> int:
        """How many layers of the head come before the cut."""
        if self.fixed < len(self.stages):
            return 0
        fixed = [isinstance(layer, _FIXED_LAYERS) for layer in self.head]
        return [*fixed, False].index(False)

    def before(self, image: Tensor) -> Tensor:
        """Features at the cut, for normalized pictures of shape (B, C, H, W)."""
        if self.fixed == len(self.stages):
            return cast(Tensor, self.head[: self._lead()](self.base(image)))
        for module in self._modules(0, self.fixed):
            image = module(image)
        return image

    def after(self, features: Tensor) -> Tensor:
        """Logits, for features at the cut."""
        for module in self._modules(self.fixed, len(self.stages)):
            features = module(features)
        return cast(Tensor, self.head[self._lead() :](features))

    def key(self) -> str:
        """A hash of all that `before` depends on but its input: the layers and their weights."""
        layers = [*self._modules(0, self.fixed), *self.head[: self._lead()]]
        found = hashlib.sha256(f"{type(self.base)} {layers}".encode())
        tensors: list[tuple[str, Tensor]] = [*self.base.named_parameters(recurse=False)]  # such as a class token
        for layer in layers:
            tensors += layer.state_dict().items()
        for name, value in tensors:
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()
