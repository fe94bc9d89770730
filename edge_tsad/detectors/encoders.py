"""Encoders of patch sequences: what the classifier and the reconstruction of CoAD are built on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from edge_tsad.errors import ConfigError

__all__ = ["ENCODERS", "ConvEncoder", "Encoder", "GruEncoder", "default_width", "make_encoder"]


class Encoder(nn.Module):
    """Patches f32[B, N, H] in, patches f32[B, N, H] out; ``usual_width`` is H of the classifier."""

    usual_width: ClassVar[int]

    def fold(self) -> None:
        """Merges layers that a fitted net in ``eval`` mode can do without, where there are any."""


class _Taps(torch.autograd.Function):
    """Depthwise convolution of [B, N, H] as shifted multiply-adds, with its gradient by hand.

    torch's own depthwise 1-D convolution takes three times as long on a CPU, and fitting spends
    most of its time here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        taps, length = weight.shape[0], x.shape[1]
        out = x * weight[taps // 2]
        for tap in range(taps):
            shift = (tap - taps // 2) * dilation
            if 0 < shift < length:
                out[:, :-shift].addcmul_(x[:, shift:], weight[tap])
            elif -length < shift < 0:
                out[:, -shift:].addcmul_(x[:, :shift], weight[tap])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        taps, length = weight.shape[0], x.shape[1]
        grad_x = grad * weight[taps // 2]
        grad_weight = torch.zeros_like(weight)
        grad_weight[taps // 2] = (grad * x).sum((0, 1))
        for tap in range(taps):
            shift = (tap - taps // 2) * ctx.dilation
            if 0 < shift < length:
                grad_x[:, shift:].addcmul_(grad[:, :-shift], weight[tap])
                grad_weight[tap] = (grad[:, :-shift] * x[:, shift:]).sum((0, 1))
            elif -length < shift < 0:
                grad_x[:, :shift].addcmul_(grad[:, -shift:], weight[tap])
                grad_weight[tap] = (grad[:, -shift:] * x[:, :shift]).sum((0, 1))
        return grad_x, grad_weight, None


_mix_taps = cast(Callable[[Tensor, Tensor, int], Tensor], _Taps.apply)


class _Block(nn.Module):
    """``x + ReLU(BatchNorm(pointwise(depthwise(x))))`` on f32[B, N, H]."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.depthwise = nn.Parameter(torch.empty(kernel, width).uniform_(-1, 1) * kernel**-0.5)
        self.pointwise = nn.Linear(width, width, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self._mix(x))
        if not isinstance(self.norm, nn.Identity):
            y = self.norm(y.flatten(0, 1)).reshape(y.shape)
        return x + torch.relu(y)

    def _mix(self, x: Tensor) -> Tensor:
        if self.training:
            return _mix_taps(x, self.depthwise, self.dilation)
        kernel, width = self.depthwise.shape
        weight = self.depthwise.t().reshape(width, 1, 1, kernel)
        reach = self.dilation * (kernel // 2)
        # In two dimensions, so that these permutations and those that a converter puts around a
        # convolution cancel each other.
        y = nn.functional.conv2d(
            x.unsqueeze(1).permute(0, 3, 1, 2),
            weight,
            padding=(0, reach),
            dilation=(1, self.dilation),
            groups=width,
        )
        return y.permute(0, 2, 3, 1).squeeze(1)

    def fold(self) -> None:
        if isinstance(self.norm, nn.BatchNorm1d):
            self.pointwise = fuse_linear_bn_eval(self.pointwise, self.norm)
            self.norm = nn.Identity()


class ConvEncoder(Encoder):
    """Residual blocks of dilated depthwise-separable convolutions over patches.

    With kernel 5 and dilations 1, 2, 4, 8 a patch sees 30 patches to each side: 240 points of 8.
    """

    usual_width = 48

    def __init__(
        self, width: int, *, kernel: int = 5, dilations: tuple[int, ...] = (1, 2, 4, 8)
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """f32[B, N, H] → f32[B, N, H]."""
        for block in self.blocks:
            x = block(x)
        return x

    def fold(self) -> None:
        """Merges each BatchNorm into the layer before it; only for a fitted net in ``eval`` mode.

        What is exported then has no normalisation of its own, in either format.
        """
        for block in self.blocks:
            cast(_Block, block).fold()


class GruEncoder(Encoder):
    """Two layers of GRU in both directions, as in the paper's released code: an ablation.

    Each direction is ``width`` wide; a linear layer joins them. It takes ten times as long to fit
    as `ConvEncoder` and has twenty times its parameters; a converter that unrolls it (TFLite's
    does) needs minutes.
    """

    usual_width = 144

    def __init__(self, width: int, *, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.recurrent = nn.GRU(
            width, width, layers, batch_first=True, dropout=dropout, bidirectional=True
        )
        self.join = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """f32[B, N, H] → f32[B, N, H]."""
        states, _ = self.recurrent(x)
        joined: Tensor = self.join(states)
        return joined


ENCODERS: Mapping[str, type[Encoder]] = {"conv": ConvEncoder, "gru": GruEncoder}


def make_encoder(name: str, width: int) -> Encoder:
    """An encoder by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    encoder: Encoder = _named(name)(width)
    return encoder


def default_width(name: str) -> int:
    """The width of the classifier's encoder, where none is asked for.

    Raises:
        ConfigError: there is no encoder of this name.
    """
    return int(_named(name).usual_width)


def _named(name: str) -> Any:
    if name not in ENCODERS:
        raise ConfigError(f"encoder: {name!r} is unknown; known are {', '.join(ENCODERS)}")
    return ENCODERS[name]
