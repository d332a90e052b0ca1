"""What a loss over relaxed codes adds so that their signs are good codes: near -1 and +1, and as many of each."""

from __future__ import annotations

from torch import Tensor, nn

from snrlib.losses import ZeroMeanRegularizer
from snrlib.utils.checks import check_embeddings, check_number

__all__ = ["CodeRegularizer"]


class CodeRegularizer(nn.Module):
    """``quantization mean (|u| - 1)^2 + balance mean_i |mean of u_i|``, over all components and over all codes i.

    The first presses every component to -1 or +1, so that little is lost when its sign is taken. The second is the
    zero-mean penalty of the report (`snrlib.losses.ZeroMeanRegularizer`) over the number of bits: a code that it leaves
    at 0 has as many +1 as -1, and for such codes the SNR distance is ``4 Hamming / bits``. (In the field, *bit balance*
    is mostly another thing: that each bit is +1 for half of the images.) Both are our reading: the hashing objective of
    the paper could not be read.

    Args:
        quantization: weight of the first, at least 0, in units of the loss.
        balance: weight of the second, likewise.

    Shape: relaxed codes (n, bits) -> scalar; labels are accepted, as by every regularizer, and ignored.

    Raises:
        TypeError, ValueError: bad weights or codes.

    >>> import torch
    >>> CodeRegularizer(1.0, 1.0)(torch.tensor([[1.0, 0.5, -1.0, -0.5]]))  # (0 + 1/4 + 0 + 1/4) / 4 + 0
    tensor(0.1250)
    """

    def __init__(self, quantization: float = 0.0, balance: float = 0.0):
        super().__init__()
        self.quantization = check_number(quantization, "quantization", at_least=0)
        self.balance = check_number(balance, "balance", at_least=0)

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        u = check_embeddings(codes, "codes")
        # quantization mean (|u| - 1)^2 + balance mean_i |mean of u_i|
        off = (u.abs() - 1).square().mean()
        return self.quantization * off + ZeroMeanRegularizer(self.balance / u.shape[1])(u)

    def extra_repr(self) -> str:
        return f"quantization={self.quantization:g}, balance={self.balance:g}"
