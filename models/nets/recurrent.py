"""Two layers of LSTM with a linear layer on the last state."""

from __future__ import annotations

from torch import Tensor, nn

WIDTH, LAYERS = 256, 2


class Recurrent(nn.Module):
    """``[B, T, 256] float32 -> [B, 256]``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.out(states[:, -1])
