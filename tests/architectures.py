"""Architectures of ``transformers`` as tiny random models: how each is made, called and left open.

A case is (model type, settings of its configuration, kind of input). Weights are drawn wide
enough that attention is far from uniform: with the library's own 0.02 a wrong mask or rotation
would hide in the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

Sizes = Mapping[str, int]
VOCABULARY = 96


@dataclass(frozen=True)
class Kind:
    """What a family is called with: inputs at given sizes, open sizes, and where they are tried."""

    inputs: Callable[[Any, Sizes], dict[str, torch.Tensor]]
    dynamic: Mapping[str, Mapping[int, str]]
    example: Sizes
    unseen: tuple[Sizes, ...]


@dataclass(frozen=True)
class Architecture:
    """One model type, the settings of its configuration, and how it is called.

    ``measured``: batch norms have the statistics of random inputs, not drawn ones. A model that
    picks the best of many places needs it: without, all places score alike, and which are picked
    is decided by rounding.
    """

    model_type: str
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)
    auto: str = "AutoModel"
    measured: bool = False

    def __str__(self) -> str:
        return self.model_type

    def model(self) -> nn.Module:
        """The model in eval mode, its weights the same at every call."""
        import transformers

        config = transformers.AutoConfig.for_model(self.model_type, **nested(self.settings))
        torch.manual_seed(0)
        model = getattr(transformers, self.auto).from_config(config).eval()
        draw_weights_(model)
        if self.measured:
            measure_statistics_(model, self.inputs(model, {"batch": 8}))
        return model

    def inputs(self, model: nn.Module, sizes: Sizes | None = None) -> dict[str, torch.Tensor]:
        """Arguments by name, random but the same at every call."""
        torch.manual_seed(1)
        return self.kind.inputs(model.config, sizes or self.kind.example)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose value is (model type, settings) as the configuration of that type."""
    import transformers

    return {
        key: transformers.AutoConfig.for_model(value[0], **value[1])
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping)
        else value
        for key, value in settings.items()
    }


def draw_weights_(model: nn.Module) -> None:
    """Linear maps that keep a vector's length, embeddings of unit variance, statistics in use."""
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Embedding):
                weight.normal_()
            elif isinstance(weight, torch.Tensor) and weight.ndim >= 2:
                weight.normal_(std=weight[0].numel() ** -0.5)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
            bias = getattr(module, "bias", None)
            if isinstance(bias, torch.Tensor) and bias.is_floating_point():
                bias.normal_(std=0.1)


def measure_statistics_(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    """Batch norms with the statistics of what they are given for these inputs."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(**inputs)
    model.eval()


def _tokens(sizes: Sizes, seq: str = "seq") -> torch.Tensor:
    # Neither the padding nor the end token, which some models give a meaning.
    return torch.randint(5, VOCABULARY, (sizes["batch"], sizes[seq]))


def _mask(sizes: Sizes) -> torch.Tensor:
    """Ones, and zeros at the end of the last row."""
    mask = torch.ones(sizes["batch"], sizes["seq"], dtype=torch.int64)
    mask[-1, max(1, sizes["seq"] - 2) :] = 0
    return mask


_BOTH = {0: "batch", 1: "seq"}
_TEXT = (
    {"batch": 2, "seq": 8},
    ({"batch": 1, "seq": 5}, {"batch": 3, "seq": 13}, {"batch": 5, "seq": 31}),
)
_BATCHES = ({"batch": 2}, ({"batch": 1}, {"batch": 3}, {"batch": 5}))

# Encoders with padding; decoders by ids alone, where the models look for packed sequences.
ENCODER = Kind(
    lambda config, sizes: {"input_ids": _tokens(sizes), "attention_mask": _mask(sizes)},
    {"input_ids": _BOTH, "attention_mask": _BOTH},
    *_TEXT,
)
DECODER = Kind(lambda config, sizes: {"input_ids": _tokens(sizes)}, {"input_ids": _BOTH}, *_TEXT)
SEQ2SEQ = Kind(
    lambda config, sizes: {
        "input_ids": _tokens(sizes),
        "attention_mask": _mask(sizes),
        "decoder_input_ids": _tokens(sizes, "out"),
    },
    {"input_ids": _BOTH, "attention_mask": _BOTH, "decoder_input_ids": {0: "batch", 1: "out"}},
    {"batch": 2, "seq": 8, "out": 6},
    (
        {"batch": 1, "seq": 5, "out": 9},
        {"batch": 3, "seq": 13, "out": 4},
        {"batch": 5, "seq": 31, "out": 17},
    ),
)


def _image(config: Any, sizes: Sizes) -> torch.Tensor:
    size = getattr(config, "image_size", None) or 64
    size = size if isinstance(size, int) else size[0]
    return torch.randn(sizes["batch"], 3, size, size)


IMAGE = Kind(
    lambda config, sizes: {"pixel_values": _image(config, sizes)},
    {"pixel_values": {0: "batch"}},
    *_BATCHES,
)
AUDIO = Kind(
    lambda config, sizes: {"input_values": torch.randn(sizes["batch"], sizes["samples"])},
    {"input_values": {0: "batch", 1: "samples"}},
    {"batch": 2, "samples": 1200},
    (
        {"batch": 1, "samples": 901},
        {"batch": 3, "samples": 1600},
        {"batch": 5, "samples": 2047},
    ),
)
SPECTROGRAM = Kind(
    lambda config, sizes: {
        "input_values": torch.randn(sizes["batch"], config.max_length, config.num_mel_bins)
    },
    {"input_values": {0: "batch"}},
    *_BATCHES,
)
SPEECH2TEXT = Kind(
    lambda config, sizes: {
        "input_features": torch.randn(
            sizes["batch"], config.num_mel_bins, 2 * config.max_source_positions
        ),
        "decoder_input_ids": _tokens(sizes, "out"),
    },
    {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "out"}},
    {"batch": 2, "out": 6},
    ({"batch": 1, "out": 9}, {"batch": 3, "out": 4}, {"batch": 5, "out": 17}),
)
IMAGE_TEXT = Kind(
    lambda config, sizes: {
        "input_ids": _tokens(sizes),
        "pixel_values": _image(config.vision_config, {"batch": sizes["images"]}),
        "attention_mask": _mask(sizes),
    },
    {"input_ids": _BOTH, "pixel_values": {0: "images"}, "attention_mask": _BOTH},
    {"batch": 2, "seq": 8, "images": 3},
    (
        {"batch": 1, "seq": 5, "images": 2},
        {"batch": 3, "seq": 13, "images": 1},
        {"batch": 5, "seq": 31, "images": 4},
    ),
)

_W = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_ENC = {**_W, "intermediate_size": 48, "max_position_embeddings": 64}
_DEC = {**_ENC, "use_cache": False}
_GROUPED = {
    **_DEC,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MIX = {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
_S2S = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "use_cache": False,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "use_cache": False,
}
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
_SPEECH = {
    **_ENC,
    "conv_dim": [32, 32, 32],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_TOWERS = {
    "text_config": {**_ENC, "eos_token_id": 2, "projection_dim": 24},
    "vision_config": {**_VIT, "projection_dim": 24},
    "projection_dim": 24,
}
_BACKBONE = (
    "resnet",
    {**_STAGES, "embedding_size": 8, "out_features": ["stage4"], "layer_type": "basic"},
)
_PYRAMID = (
    "rt_detr_resnet",
    {
        **_STAGES,
        "embedding_size": 8,
        "out_features": ["stage2", "stage3", "stage4"],
        "layer_type": "basic",
    },
)
_LM = "AutoModelForCausalLM"


def _case(
    model_type: str, kind: Kind, base: Mapping[str, Any], auto: str = "AutoModel", **more: Any
) -> Architecture:
    return Architecture(model_type, kind, {**base, **more}, auto)


ARCHITECTURES: tuple[Architecture, ...] = (
    # Encoders of text.
    _case("bert", ENCODER, _ENC),
    _case(
        "distilbert",
        ENCODER,
        {},
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=64,
    ),
    _case("roberta", ENCODER, _ENC),
    _case("xlm-roberta", ENCODER, _ENC, "AutoModelForMaskedLM"),
    _case("albert", ENCODER, _ENC, embedding_size=16),
    _case("electra", ENCODER, _ENC, embedding_size=16),
    _case("mpnet", ENCODER, _ENC),
    _case("deberta", ENCODER, _ENC, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _case("deberta-v2", ENCODER, _ENC, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _case("esm", ENCODER, _ENC, pad_token_id=1, mask_token_id=4, position_embedding_type="rotary"),
    _case("rembert", ENCODER, _ENC, input_embedding_size=16),
    _case("squeezebert", ENCODER, _ENC, embedding_size=32),
    _case(
        "mobilebert",
        ENCODER,
        _ENC,
        embedding_size=16,
        intra_bottleneck_size=32,
        true_hidden_size=32,
    ),
    _case("convbert", ENCODER, _ENC, embedding_size=16),
    _case("roformer", ENCODER, _ENC, embedding_size=32),
    _case(
        "modernbert",
        ENCODER,
        _ENC,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    _case("xlnet", ENCODER, {}, vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48),
    _case("umt5", ENCODER, _T5, "AutoModelForTextEncoding"),  # T5's encoder alone
    # Decoders of text.
    _case(
        "gpt2",
        DECODER,
        {},
        _LM,
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        use_cache=False,
    ),
    _case(
        "gpt_neo",
        DECODER,
        _DEC,
        _LM,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
    ),
    _case(
        "gptj",
        DECODER,
        {},
        _LM,
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
        use_cache=False,
    ),
    _case(
        "gpt_bigcode",
        DECODER,
        {},
        _LM,
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        use_cache=False,
    ),
    _case("gpt_neox", DECODER, _DEC, _LM),
    _case("opt", DECODER, _DEC, _LM, ffn_dim=48, word_embed_proj_dim=32),
    _case("bloom", DECODER, _W, _LM, n_layer=2, n_head=4, use_cache=False),
    _case(
        "mpt",
        DECODER,
        {},
        _LM,
        vocab_size=VOCABULARY,
        d_model=32,
        n_layers=2,
        n_heads=4,
        expansion_ratio=2,
        max_seq_len=64,
        use_cache=False,
    ),
    _case("falcon", DECODER, _DEC, _LM),
    _case("phi", DECODER, _DEC, _LM),
    _case("phi3", DECODER, _DEC, _LM, pad_token_id=0),
    _case("biogpt", DECODER, _DEC, _LM),
    _case("llama", DECODER, _GROUPED, _LM),
    _case("mistral", DECODER, _GROUPED, _LM, sliding_window=4),
    _case("gemma", DECODER, _GROUPED, _LM),
    _case("gemma2", DECODER, _GROUPED, _LM, sliding_window=4),
    _case("gemma3_text", DECODER, _GROUPED, _LM, sliding_window=4),
    _case("qwen2", DECODER, _GROUPED, _LM),
    _case("qwen3", DECODER, _GROUPED, _LM),
    _case("stablelm", DECODER, _GROUPED, _LM),
    _case("olmo", DECODER, _GROUPED, _LM),
    _case("olmo2", DECODER, _GROUPED, _LM),
    _case("granite", DECODER, _GROUPED, _LM),
    _case("cohere", DECODER, _GROUPED, _LM),
    _case("starcoder2", DECODER, _GROUPED, _LM),
    _case("smollm3", DECODER, _GROUPED, _LM),
    _case("mixtral", DECODER, _MIX, _LM),
    _case("qwen3_moe", DECODER, _MIX, _LM, num_experts=4, moe_intermediate_size=24),
    _case("olmoe", DECODER, _MIX, _LM, num_experts=4),
    _case(
        "mamba",
        DECODER,
        {},
        _LM,
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        use_cache=False,
    ),
    _case(
        "mamba2",
        # Chunks of 8: the example has several, and part of one, for which torch's trace is general.
        replace(DECODER, example={"batch": 2, "seq": 20}),
        {},
        _LM,
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        num_heads=8,
        head_dim=8,
        expand=2,
        n_groups=1,
        chunk_size=8,
        use_cache=False,
    ),
    # Text to text.
    _case("t5", SEQ2SEQ, _T5, "AutoModelForSeq2SeqLM"),
    _case("mt5", SEQ2SEQ, _T5),
    _case("bart", SEQ2SEQ, _S2S),
    _case("mbart", SEQ2SEQ, _S2S),
    _case("pegasus", SEQ2SEQ, _S2S),
    _case("marian", SEQ2SEQ, _S2S, pad_token_id=0),
    _case("m2m_100", SEQ2SEQ, _S2S),
    # Images.
    _case("vit", IMAGE, _VIT),
    _case("deit", IMAGE, _VIT),
    _case("beit", IMAGE, _VIT, use_relative_position_bias=True),
    _case("dinov2", IMAGE, _VIT),
    _case(
        "yolos",
        IMAGE,
        _VIT,
        "AutoModelForObjectDetection",
        image_size=[32, 32],
        num_detection_tokens=5,
    ),
    _case(
        "swin",
        IMAGE,
        {},
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    _case(
        "swinv2",
        IMAGE,
        {},
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    _case("convnext", IMAGE, _STAGES, image_size=64),
    _case("resnet", IMAGE, _STAGES, "AutoModelForImageClassification", embedding_size=8),
    _case("regnet", IMAGE, _STAGES, embedding_size=8, groups_width=8),
    _case("mobilenet_v2", IMAGE, {}, image_size=64, depth_multiplier=0.35),
    _case(
        "mobilevit",
        IMAGE,
        {},
        image_size=64,
        hidden_sizes=[16, 20, 24],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
        num_attention_heads=4,
    ),
    _case("poolformer", IMAGE, {**_STAGES}, image_size=64),
    _case("pvt", IMAGE, {**_STAGES}, image_size=64, num_attention_heads=[1, 2, 2, 4]),
    _case(
        "levit",
        IMAGE,
        {},
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 2, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    _case(
        "segformer",
        IMAGE,
        {},
        "AutoModelForSemanticSegmentation",
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=32,
        num_labels=7,
    ),
    _case(
        "detr",
        IMAGE,
        {},
        "AutoModelForObjectDetection",
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=7,
        backbone_config=_BACKBONE,
    ),
    replace(
        _case(
            "rt_detr",
            IMAGE,
            {},
            "AutoModelForObjectDetection",
            d_model=32,
            encoder_hidden_dim=32,
            encoder_in_channels=[16, 24, 32],
            encoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_in_channels=[32, 32, 32],
            decoder_layers=1,
            decoder_attention_heads=4,
            decoder_ffn_dim=48,
            hidden_expansion=0.5,
            num_queries=7,
            num_denoising=0,
            num_labels=5,
            backbone_config=_PYRAMID,
        ),
        measured=True,
    ),
    _case(
        "depth_anything",
        IMAGE,
        {},
        "AutoModelForDepthEstimation",
        backbone_config=(
            "dinov2",
            {**_VIT, "out_features": ["stage1", "stage2"], "reshape_hidden_states": False},
        ),
        reassemble_hidden_size=32,
        patch_size=8,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    ),
    # Sound.
    _case("wav2vec2", AUDIO, _SPEECH, "AutoModelForCTC"),
    _case("hubert", AUDIO, _SPEECH),
    _case("wavlm", AUDIO, _SPEECH),
    _case(
        "audio-spectrogram-transformer",
        SPECTROGRAM,
        _VIT,
        patch_size=4,
        max_length=24,
        num_mel_bins=16,
        frequency_stride=4,
        time_stride=4,
    ),
    _case(
        "whisper",
        SPEECH2TEXT,
        {
            **_S2S,
            "max_source_positions": 30,
            "max_target_positions": 40,
            "num_mel_bins": 16,
            "pad_token_id": 0,
        },
    ),
    # Images and text.
    _case("clip", IMAGE_TEXT, _TOWERS),
    _case(
        "siglip",
        IMAGE_TEXT,
        {"text_config": {**_ENC, "projection_size": 32}, "vision_config": _VIT},
    ),
)
