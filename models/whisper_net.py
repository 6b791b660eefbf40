"""Whisper's two networks (arXiv:2212.04356) at the size tiny, with their checkpoint's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LAYERS, FEED_FORWARD = 384, 6, 4, 1536
MELS, FRAMES, STATES = 80, 3000, 1500
VOCABULARY, POSITIONS = 51864, 448


class Attention(nn.Module):
    """``[B, T, 384], [B, S, 384] -> [B, T, 384]``; keys have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.v_proj = nn.Linear(WIDTH, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, source: Tensor, causal: bool = False) -> Tensor:
        q, k, v = _heads(self.q_proj(x)), _heads(self.k_proj(source)), _heads(self.v_proj(source))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(x.shape))


class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.self_attn_layer_norm = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, FEED_FORWARD)
        self.fc2 = nn.Linear(FEED_FORWARD, WIDTH)
        self.final_layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn(y, y)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class DecoderLayer(EncoderLayer):
    def __init__(self) -> None:
        super().__init__()
        self.encoder_attn = Attention()
        self.encoder_attn_layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, states: Tensor) -> Tensor:  # type: ignore[override]
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn(y, y, causal=True)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), states)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class Encoder(nn.Module):
    """Log-mel ``[B, 80, 3000] float32`` (30 seconds) ``-> states [B, 1500, 384]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(STATES, WIDTH)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Decoder(nn.Module):
    """``tokens [B, T] int64, states [B, 1500, 384] -> logits [B, T, 51864]`` of the next tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.embed_positions = nn.Embedding(POSITIONS, WIDTH)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(LAYERS))
        self.layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, states: Tensor) -> Tensor:
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, states)
        return F.linear(self.layer_norm(x), self.embed_tokens.weight)


def _heads(x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)


def log_mel(samples: Tensor) -> Tensor:
    """Sound at 16 kHz, cut or padded to 30 seconds, as Whisper sees it: ``[1, 80, 3000]``."""
    hop, window = 160, 400
    samples = F.pad(samples, (0, hop * FRAMES))[: hop * FRAMES]
    hann = torch.hann_window(window)
    spectrum = torch.stft(samples, window, hop, window=hann, return_complex=True)[:, :-1]
    power = torch.clamp(_mel_filters() @ spectrum.abs() ** 2, min=1e-10).log10()
    return ((torch.maximum(power, power.max() - 8.0) + 4.0) / 4.0)[None]


def _mel_filters() -> Tensor:
    """Slaney's triangles ``[80, 201]``: linear to 1 kHz, logarithmic above, of equal area."""
    low, step = 1000.0 / (200.0 / 3.0), torch.log(torch.tensor(6.4)) / 27.0
    top = low + torch.log(torch.tensor(8.0)) / step
    mels = torch.linspace(0.0, float(top), MELS + 2)
    linear, bent = mels * 200.0 / 3.0, 1000.0 * torch.exp(step * (mels - low))
    edges = torch.where(mels < low, linear, bent)
    lines = torch.linspace(0.0, 8000.0, 201)
    rising = (lines - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - lines) / (edges[2:] - edges[1:-1])[:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return torch.minimum(rising, falling).clamp(min=0.0) * area[:, None]
