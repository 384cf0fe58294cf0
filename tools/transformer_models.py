"""Small configurations of the transformers that people bring, with random weights, by both exporters of PyTorch. Needs PyTorch, timm and transformers.

    python tools/transformer_models.py FOLDER [NAME ...]

writes an ONNX file for each model and exporter; what an exporter cannot do is printed.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import timm
import torch
import transformers
from torch import Tensor, nn

TOKENS, VOCABULARY = 24, 500
WIDTHS = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 384}


class First(nn.Module):
    """The first output of a model of transformers, whose inputs have names."""

    def __init__(self, model: nn.Module, *names: str, **more: object) -> None:
        super().__init__()
        self.model, self.names, self.more = model, names, more

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.more, return_dict=False)[0]


Made = tuple[nn.Module, tuple[Tensor, ...]]


def image(name: str, side: int = 64, **more: object) -> Callable[[], Made]:
    """A model of timm, for small pictures."""

    def build() -> Made:
        model = timm.create_model(name, num_classes=10, **more)
        nn.init.normal_(model.get_classifier().weight, std=0.1)  # some begin with zeros
        return model, (torch.randn(2, 3, side, side),)

    return build


def text(make: str, masked: bool = True, **more: object) -> Callable[[], Made]:
    """A model of transformers over tokens."""

    def build() -> Made:
        kind, config = make.split("/")
        settings = getattr(transformers, config)(vocab_size=VOCABULARY, **more)
        settings._attn_implementation = "sdpa"
        tokens = torch.randint(1, VOCABULARY, (2, TOKENS))
        names = ("input_ids", "attention_mask") if masked else ("input_ids",)
        model = First(getattr(transformers, kind)(settings), *names, **({} if masked else {"use_cache": False}))
        return model, (tokens, torch.ones_like(tokens)) if masked else (tokens,)

    return build


def whisper() -> Made:
    """The encoder, over spectrograms."""
    config = transformers.WhisperConfig(
        d_model=96,
        encoder_layers=2,
        encoder_attention_heads=3,
        encoder_ffn_dim=384,
        decoder_layers=1,
        decoder_attention_heads=3,
        decoder_ffn_dim=96,
        max_source_positions=50,
        vocab_size=VOCABULARY,
        pad_token_id=0,
    )
    model = transformers.WhisperModel(config).get_encoder()
    return First(model, "input_features"), (torch.randn(2, config.num_mel_bins, 100),)


def wav2vec2() -> Made:
    """Over samples of sound."""
    config = transformers.Wav2Vec2Config(
        **WIDTHS,
        num_hidden_layers=2,
        vocab_size=32,
        conv_dim=(48,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return First(transformers.Wav2Vec2ForCTC(config), "input_values"), (torch.randn(2, 4000),)


MODELS: dict[str, Callable[[], Made]] = {
    "deit_tiny": image("deit_tiny_patch16_224", img_size=64, depth=2),
    "swin_tiny": image(
        "swin_tiny_patch4_window7_224", 112, img_size=112, depths=(2, 2), num_heads=(3, 6), embed_dim=96
    ),
    "mobilevit": image("mobilevit_xxs"),
    "convnext": image("convnext_atto", depths=(1, 1, 2, 1)),
    "mixer": image("mixer_s32_224", img_size=64),
    "bert": text("BertModel/BertConfig", **WIDTHS, num_hidden_layers=2),
    "distilbert": text("DistilBertModel/DistilBertConfig", dim=96, n_heads=3, hidden_dim=384, n_layers=2),
    "gpt2": text("GPT2LMHeadModel/GPT2Config", masked=False, n_embd=96, n_head=3, n_layer=2, n_positions=64),
    "llama": text(
        "LlamaForCausalLM/LlamaConfig",
        masked=False,
        **{**WIDTHS, "num_attention_heads": 6},
        num_key_value_heads=2,
        num_hidden_layers=2,
    ),
    "whisper": whisper,
    "wav2vec2": wav2vec2,
}


def export_all(folder: Path, names: Sequence[str] = ()) -> Iterator[tuple[str, Path | str]]:
    """Write every model by every exporter to `folder` and yield its name and path, or what went wrong."""
    for name in names or MODELS:
        for dynamo in (True, False):
            torch.manual_seed(0)
            path = folder / f"{name}_{'dynamo' if dynamo else 'torchscript'}.onnx"
            try:
                model, inputs = MODELS[name]()
                _export(model.eval(), inputs, path, dynamo=dynamo)
                yield path.stem, path
            except Exception as error:
                yield path.stem, f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _export(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, dynamo: bool) -> None:
    names = [f"input{number}" for number in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = torch.export.Dim("batch", min=1, max=64)
            shapes = tuple({0: batch} for _ in inputs)
            more = {"dynamic_shapes": (shapes,) if isinstance(model, First) else shapes, "external_data": False}
            torch.onnx.export(model, inputs, path, dynamo=True, input_names=names, output_names=["output"], **more)
        else:
            axes = {name: {0: "batch"} for name in (*names, "output")}
            torch.onnx.export(
                model,
                inputs,
                path,
                dynamo=False,
                opset_version=17,
                input_names=names,
                output_names=["output"],
                dynamic_axes=axes,
            )


if __name__ == "__main__":
    for stem, found in export_all(Path(sys.argv[1]), sys.argv[2:]):
        print(stem, found, flush=True)
