"""The codec in training: audiocraft's parts, their first weights, conversion to transformers and back."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel

from lora_bench.models.bridges.configs import codec_config_to_audiocraft
from lora_bench.models.bridges.tensors import codec_to_audiocraft, codec_to_transformers
from pocket_training.export import load_encodec
from pocket_training.shapes import FRAME_RATE_HZ, N_CODEBOOKS, build_codec_config

DEAD_FRAC = 0.1  # of the mean use of a codebook's codes


class PocketCodec(nn.Module):
    """audiocraft's encoder, residual quantizer and decoder in the shape of a transformers config."""

    def __init__(self, config: EncodecConfig | None = None) -> None:
        super().__init__()
        from audiocraft.models import builders
        from omegaconf import OmegaConf

        self.config = config or build_codec_config()
        parts = codec_config_to_audiocraft(self.config, N_CODEBOOKS)
        # A batch holds less than one vector per code, hence the decay.  audiocraft's own expiry of dead codes is
        # undone by its next line: see `restart_codes`.
        parts["rvq"] |= {"decay": 0.99, "threshold_ema_dead_code": 0}
        made: Any = builders.get_compression_model(OmegaConf.create(parts))
        self.encoder: nn.Module = made.encoder
        self.decoder: nn.Module = made.decoder
        self.quantizer: Any = made.quantizer

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct.

        Args:
            audio: (B, 1, samples), samples a multiple of the hop.

        Returns:
            Reconstruction (B, 1, samples), codes (B, K, T), commitment loss (scalar).
        """
        result = self.quantizer(self.encoder(audio), FRAME_RATE_HZ)
        return self.decoder(result.x), result.codes, result.penalty


def start_weights(codec: PocketCodec) -> None:
    """Start every convolution so that it keeps the variance of its input, biases at zero.

    torch's default shrinks the signal by about sqrt(3) a layer: after fourteen layers only the biases are left,
    every frame gets the same code, and the codebooks collapse onto one code for the first thousand steps.
    """
    gain = 1.2  # ELU loses some variance
    for module in codec.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            nn.init.normal_(module.weight_v)
            scale = gain
            # a transposed convolution's weight is (in, out, kernel): the norm is per input channel
            if isinstance(module, nn.ConvTranspose1d):
                scale = gain * (module.out_channels * module.stride[0] / module.in_channels) ** 0.5
            module.weight_g.data.fill_(scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in codec.named_modules():
        if name.endswith("block.3.conv.conv"):  # the residual branch's last convolution
            module.weight_g.data.mul_(0.4)
    convolutions = [module for module in codec.modules() if isinstance(module, nn.Conv1d)]
    convolutions[0].weight_g.data.mul_(4.0)  # music comes in at -20 dBFS
    convolutions[-1].weight_g.data.mul_(0.04)  # and goes out so


def start_codebooks(codec: PocketCodec, audio: Tensor, n_iterations: int = 10) -> None:
    """Start each codebook at the k-means centres of the residual that the earlier ones leave.

    audiocraft's own k-means holds all differences between vectors and centres at once, which takes gigabytes.

    Args:
        codec: Its codebooks are set in place.
        audio: (B, 1, samples), some 8 frames for each code.
        n_iterations: Of Lloyd's algorithm.
    """
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        hidden = torch.cat([codec.encoder(piece) for piece in audio.split(16)])
        residual = hidden.transpose(1, 2).flatten(0, 1)  # (B x T, D)
        for layer in codec.quantizer.vq.layers:
            book = layer._codebook
            centres = residual[torch.randperm(len(residual), generator=rng)[: len(book.embed)]].clone()
            for _ in range(n_iterations):
                nearest = torch.cdist(residual, centres).argmin(1)
                counts = torch.bincount(nearest, minlength=len(centres)).float()
                sums = torch.zeros_like(centres).index_add_(0, nearest, residual)
                centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), centres)
            book.embed.copy_(centres)
            book.embed_avg.copy_(centres)
            book.cluster_size.fill_(1.0)
            residual = residual - centres[torch.cdist(residual, centres).argmin(1)]


def restart_codes(quantizer: Any, hidden: Tensor, rng: torch.Generator) -> int:
    """Move codes that are hardly used onto random vectors of this batch.

    audiocraft's codebook does so too, but then recomputes `embed` from averages that it did not move, so that a dead
    code stays dead.

    Args:
        quantizer: Its codebooks are changed in place.
        hidden: The encoder's output, (B, D, T).
        rng: On the CPU; decides which vectors.

    Returns:
        How many codes were moved.
    """
    n_moved, residual = 0, hidden.detach().transpose(1, 2).flatten(0, 1)
    for layer in quantizer.vq.layers:
        book = layer._codebook
        usual = book.cluster_size.mean()
        dead = (book.cluster_size < DEAD_FRAC * usual).nonzero()[:, 0][: len(residual) // 4]
        fresh = residual[torch.randperm(len(residual), generator=rng)[: len(dead)].to(residual.device)]
        book.embed[dead], book.embed_avg[dead], book.cluster_size[dead] = fresh, fresh * usual, usual
        n_moved += len(dead)
        residual = residual - book.dequantize(book.quantize(residual))
    return n_moved


def save_codec(codec: PocketCodec, folder: Path) -> EncodecModel:
    """Convert to transformers and save, each file whole or not at all."""
    model = EncodecModel(codec.config)
    model.load_state_dict(codec_to_transformers(codec.state_dict()))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        model.eval().save_pretrained(fresh)
        for file in Path(fresh).iterdir():
            file.replace(folder / file.name)
    return model


def load_codec(codec: PocketCodec, folder: Path) -> bool:
    """Copy the weights of a folder's codec; codebooks of another size stay as they are.

    A codec with more filters computes the same at first: its new channels read all others, and the old channels do
    not read them yet.

    Returns:
        True if the codebooks were copied too.
    """
    old = codec_to_audiocraft(load_encodec(folder).state_dict())
    new = codec.state_dict()
    books = [name for name in new if name.startswith("quantizer.")]
    fit = all(new[name].shape == old[name].shape for name in books)
    plain = {name: tensor for name, tensor in new.items() if name not in books}
    codec.load_state_dict(new | widen_weights(old, plain) | ({n: old[n] for n in books} if fit else {}))
    return fit


def widen_weights(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the weights of `old` into the wider ones of `new`; see `load_codec`.

    Args:
        old: audiocraft's names, weight-normed convolutions as `weight_g` and `weight_v`.
        new: The same names, no dimension smaller.

    Returns:
        A copy of `new` with the old weights in the first channels.
    """
    wide: dict[str, Tensor] = {}
    for name, tensor in new.items():
        if name.endswith("weight_g"):
            continue
        small, large = old[name], tensor.clone()
        if ".lstm." in name:  # four gates stand one below the other
            small, large = small.unflatten(0, (4, -1)), large.unflatten(0, (4, -1))
            large[:, : small.shape[1]] = 0
            large[tuple(slice(n) for n in small.shape)] = small
            wide[name] = large.flatten(0, 1)
        elif name.endswith("weight_v"):
            stem = name.removesuffix("v")
            small = torch._weight_norm(small, old[stem + "g"])
            large = torch._weight_norm(large, new[stem + "g"])
            outputs = 1 if ".convtr." in name else 0  # a transposed convolution's are its second dimension
            large.narrow(outputs, 0, small.shape[outputs]).zero_()
            large[tuple(slice(n) for n in small.shape)] = small
            wide[name], wide[stem + "g"] = large, large.norm(dim=(1, 2), keepdim=True)
        else:  # biases
            large[tuple(slice(n) for n in small.shape)] = small
            wide[name] = large
    return wide


def check_conversion(codec: PocketCodec, model: EncodecModel, audio: Tensor) -> float:
    """Return the largest difference of the two reconstructions of (N, 1, samples).

    Raises:
        ValueError: The codes differ.
    """
    codec.eval()
    with torch.no_grad():
        codes = codec.quantizer.encode(codec.encoder(audio))
        theirs = model.encode(audio).audio_codes[0]
        if not torch.equal(codes, theirs):
            raise ValueError(
                f"{(codes != theirs).float().mean():.2%} of the codes differ after conversion to transformers"
            )
        return float(
            (codec.decoder(codec.quantizer.decode(codes)) - model.decode(theirs[None], [None]).audio_values)
            .abs()
            .max()
        )
