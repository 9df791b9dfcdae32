"""Which blocks of a backbone are frozen, in which epoch; it knows modules and neither the trainer nor the data."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pet_cifar.errors import InputError, did_you_mean

NOTHING, ALL = "nothing", "all"

# These layers of a head have nothing to learn: behind a frozen backbone they are as fixed as the backbone.
_FIXED_LAYERS = (nn.AdaptiveAvgPool2d, nn.Flatten)


def stages_of(backbone: nn.Module) -> list[str]:
    """Names the stages of a backbone in the order in which they were built; a sequence counts as its parts."""

    def apart(name: str, module: nn.Module) -> Iterator[str]:
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module):
            for child, layer in module.named_children():
                yield from apart(f"{name}.{child}" if name else child, layer)
        else:
            yield name

    if isinstance(backbone, nn.Sequential):
        return list(apart("", backbone))
    return [stage for name, module in backbone.named_children() for stage in apart(name, module)]


def ends_of(stages: Sequence[str]) -> dict[str, int]:
    """How many stages there are up to the end of each block, for ``blocks`` and ``blocks.4`` alike."""
    ends: dict[str, int] = {}
    for count, stage in enumerate(stages, start=1):
        words = stage.split(".")
        for length in range(1, len(words) + 1):
            ends[".".join(words[:length])] = count
    return ends


def is_chain(backbone: nn.Module, stages: Sequence[str], example: Tensor) -> bool:
    """Whether the stages, one after the other, compute what the backbone computes."""
    if isinstance(backbone, nn.Sequential):
        return True
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            wanted = backbone(example)
            found = example
            for stage in stages:
                found = backbone.get_submodule(stage)(found)
    # A stage that takes or gives something else than a tensor fails in its own way.
    except Exception:
        return False
    finally:
        backbone.train(training)
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    return torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())


class Freezing:
    """Keeps the first stages of a backbone as they are: in evaluation, without gradients, not in the optimizer.

    Later epochs may unfreeze some of them. What an epoch trains follows from its number alone, so that a run resumes
    exactly; all that is ever trained is in the optimizer from the start, under the same schedule. (Lightning's
    ``BackboneFinetuning`` adds parameters later, which a schedule of steps and the exchange of gradients between
    processes then leave out, and lets frozen batch norms go on averaging, Lightning issue 21652.)

    Args:
        backbone: The layers from normalized pictures to features.
        head: The layers from features to logits.
        blocks: The names of blocks, and how many of the backbone's stages there are up to the end of each; None takes
            the names of its modules.
        freeze_until: ``nothing``, the name of the last block that is frozen, or ``all``.
        unfreeze: From which epoch on, counted from 0, less is frozen: until which block, or ``nothing``.

    Raises:
        InputError: A block is not there, or the epochs do not unfreeze more and more.

    Attributes:
        stages: The names of the backbone's stages, in the order of the forward pass.
        frozen_from_epoch: From which epoch on how many stages are frozen, in the order of the epochs.
        fixed: How many stages are frozen in all epochs.
        frozen: How many stages are frozen now.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Sequential,
        blocks: Mapping[str, int] | None,
        freeze_until: str,
        unfreeze: Mapping[int, str] | None,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.stages = stages_of(backbone)
        self.ends = {NOTHING: 0, **(ends_of(self.stages) if blocks is None else blocks), ALL: len(self.stages)}
        self.frozen_from_epoch = [(0, self._count("freeze_until", freeze_until))]
        for epoch, until in sorted((unfreeze or {}).items()):
            count = self._count(f"unfreeze: epoch {epoch}", until)
            if epoch < 1:
                raise InputError(f"unfreeze: epoch {epoch}; the first epoch, 0, is freeze_until's; give 1 or more")
            if count >= self.frozen_from_epoch[-1][1]:
                raise InputError(
                    f"unfreeze: epoch {epoch}: {until} unfreezes nothing more than what was unfrozen before"
                )
            self.frozen_from_epoch.append((epoch, count))
        self.fixed = self.frozen_from_epoch[-1][1]
        self._trainable = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
        self._freeze(self.fixed)

    def _modules(self, start: int, stop: int) -> list[nn.Module]:
        # They are looked up by name, since --trainer.sync_batchnorm puts others in their places.
        return [self.backbone.get_submodule(name) for name in self.stages[start:stop]]

    def _count(self, option: str, name: str) -> int:
        if name not in self.ends:
            # The modules within blocks may be named too, and are too many to list.
            listed = [end for end in self.ends if end.count(".") < 2]
            near = did_you_mean(name, self.ends)
            raise InputError(f"{option} {name}: there is no such block{near}; it is one of {', '.join(listed)}")
        return self.ends[name]

    def unfreeze(self) -> None:
        """Unfreezes all that any epoch trains, which is what an optimizer is made for."""
        self._freeze(self.fixed)

    def freeze_for(self, epoch: int) -> bool:
        """Freezes what this epoch, counted from 0, does not train; says whether that has changed."""
        before = self.frozen
        self._freeze([count for start, count in self.frozen_from_epoch if start <= epoch][-1])
        return self.frozen != before

    def _freeze(self, count: int) -> None:
        self.frozen = count
        inside = {id(parameter) for module in self._modules(0, count) for parameter in module.parameters()}
        if count:  # The backbone may have parameters of its own, such as a class token.
            inside |= {id(parameter) for parameter in self.backbone.parameters(recurse=False)}
        for parameter in self.backbone.parameters():
            if id(parameter) in self._trainable:
                parameter.requires_grad_(id(parameter) not in inside)
        self.backbone.train(self.head.training)
        self.keep_frozen_in_eval()

    def keep_frozen_in_eval(self) -> None:
        """Puts what is frozen into evaluation, after the whole net was put into training."""
        if self.frozen == len(self.stages):
            self.backbone.eval()
        for module in self._modules(0, self.frozen):
            module.eval()

    # The cut: all that comes before it computes the same in all epochs.

    def can_cut(self, example: Tensor) -> bool:
        """Whether the net can be run in two halves, before and after the cut; this runs it once or twice.

        Args:
            example: A normalized picture, shape (1, C, H, W).
        """
        return self.fixed == len(self.stages) or is_chain(self.backbone, self.stages, torch.rand_like(example))

    def _fixed_head_layers(self) -> int:
        """How many layers of the head come before the cut."""
        if self.fixed < len(self.stages):
            return 0
        fixed = [isinstance(layer, _FIXED_LAYERS) for layer in self.head]
        return [*fixed, False].index(False)

    def before(self, image: Tensor) -> Tensor:
        """Features at the cut, for normalized pictures of shape (B, C, H, W)."""
        if self.fixed == len(self.stages):
            return cast(Tensor, self.head[: self._fixed_head_layers()](self.backbone(image)))
        for module in self._modules(0, self.fixed):
            image = module(image)
        return image

    def feature_shape(self, example: Tensor) -> torch.Size:
        """The shape of one picture's features at the cut, with their places where a layer of the head flattens them.

        Args:
            example: A normalized picture, shape (1, C, H, W).
        """
        self.keep_frozen_in_eval()
        with torch.no_grad():
            if self.fixed < len(self.stages):
                return self.before(example).shape[1:]
            features = self.backbone(example)
            for layer in self.head[: self._fixed_head_layers()]:
                features = features if isinstance(layer, nn.Flatten) else layer(features)
        return torch.Size(features.shape[1:])

    def after(self, features: Tensor) -> Tensor:
        """Logits, for features at the cut."""
        for module in self._modules(self.fixed, len(self.stages)):
            features = module(features)
        return cast(Tensor, self.head[self._fixed_head_layers() :](features))

    def key(self) -> str:
        """A hash of all that `before` depends on but its input: the layers and their weights."""
        layers = [*self._modules(0, self.fixed), *self.head[: self._fixed_head_layers()]]
        found = hashlib.sha256(f"{type(self.backbone)} {layers}".encode())
        # The backbone may have parameters of its own, such as a class token.
        tensors: list[tuple[str, Tensor]] = [*self.backbone.named_parameters(recurse=False)]
        for layer in layers:
            tensors += layer.state_dict().items()
        for name, value in tensors:
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()
