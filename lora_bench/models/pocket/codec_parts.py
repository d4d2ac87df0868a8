"""The codec while it is trained: audiocraft's parts, their start and losses, the way to transformers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EncodecModel

from lora_bench.models.bridges.tensors import codec_to_transformers

from .shapes import CODEBOOK_SIZE, FRAME_RATE_HZ, N_CODEBOOKS, SAMPLE_RATE_HZ, build_codec_config


class PocketCodec(nn.Module):
    """audiocraft's encoder, residual quantizer and decoder in the shape of `build_codec_config`."""

    def __init__(self) -> None:
        super().__init__()
        from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder
        from audiocraft.quantization import ResidualVectorQuantizer

        config = build_codec_config()
        shape: dict[str, Any] = {
            "dimension": config.hidden_size,
            "n_filters": config.num_filters,
            "n_residual_layers": config.num_residual_layers,
            "ratios": list(config.upsampling_ratios),
            "norm": "weight_norm",
            "kernel_size": config.kernel_size,
            "last_kernel_size": config.last_kernel_size,
            "residual_kernel_size": config.residual_kernel_size,
            "dilation_base": config.dilation_growth_rate,
            "causal": False,
            "pad_mode": config.pad_mode,
            "true_skip": True,
            "compress": config.compress,
            "lstm": config.num_lstm_layers,
        }
        self.encoder: nn.Module = SEANetEncoder(**shape)
        self.decoder: nn.Module = SEANetDecoder(**shape)
        # a batch holds about one vector per code: audiocraft's threshold of 2 would replace all at once
        self.quantizer: Any = ResidualVectorQuantizer(
            dimension=config.hidden_size,
            n_q=N_CODEBOOKS,
            bins=CODEBOOK_SIZE,
            kmeans_init=False,
            threshold_ema_dead_code=0.15,
        )  # type: ignore[arg-type]

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

    torch's default shrinks the signal by about sqrt(3) a layer: after fourteen the biases are all that is
    left, every frame encodes alike, and the codebooks collapse onto one code for the first thousand steps.
    """
    gain = 1.2  # ELU loses some variance
    for module in codec.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            nn.init.normal_(module.weight_v)
            scale = gain
            if isinstance(
                module, nn.ConvTranspose1d
            ):  # its weight is (in, out, kernel): the norm is per input channel
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
    """Start each codebook at the k-means centres of what the ones before it left over.

    audiocraft's own k-means holds every difference of a vector and a centre at once: gigabytes.

    Args:
        codec: Its codebooks are set in place.
        audio: (B, 1, samples), some 8 frames for each code.
        n_iterations: Of Lloyd's algorithm.
    """
    with torch.no_grad():
        residual = codec.encoder(audio).transpose(1, 2).flatten(0, 1)  # (B x T, D)
        for layer in codec.quantizer.vq.layers:
            book = layer._codebook
            centres = residual[torch.randperm(len(residual))[:CODEBOOK_SIZE]].clone()
            for _ in range(n_iterations):
                nearest = torch.cdist(residual, centres).argmin(1)
                counts = torch.bincount(nearest, minlength=CODEBOOK_SIZE).float()
                sums = torch.zeros_like(centres).index_add_(0, nearest, residual)
                centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), centres)
            book.embed.copy_(centres)
            book.embed_avg.copy_(centres)
            book.cluster_size.fill_(1.0)
            residual = residual - centres[torch.cdist(residual, centres).argmin(1)]


class MelLoss(nn.Module):
    """L1 of linear and log10 mel spectrograms at four scales: audiocraft's transforms, each taken once."""

    def __init__(self) -> None:
        super().__init__()
        from audiocraft.losses.specloss import MelSpectrogramWrapper

        scales = ((256, 24), (512, 48), (1024, 80), (2048, 128))
        self.transforms = nn.ModuleList(
            MelSpectrogramWrapper(
                n_fft=n,
                hop_length=n // 4,
                win_length=n,
                n_mels=m,
                sample_rate=SAMPLE_RATE_HZ,
                log=False,
                normalized=True,
            )
            for n, m in scales
        )

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Distance of two signals (B, 1, samples)."""
        return self.measure_both(fake, real)[0]

    def measure_both(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The distance, and the squared difference of square roots, relative to the signal's.

        The first is at its least near the median of what a frame may be, which leaves out the peaks; the
        second near the mean, which keeps more of their energy.
        """
        loss, peaks = fake.new_zeros(()), fake.new_zeros(())
        for transform in self.transforms:
            a, b = transform(fake), transform(real)
            loss = loss + F.l1_loss(a, b) + F.l1_loss((a + 1e-5).log10(), (b + 1e-5).log10())
            peaks = peaks + F.mse_loss((a + 1e-6).sqrt(), (b + 1e-6).sqrt()) / (b.mean() + 1e-4)
        return loss / len(self.transforms), peaks / len(self.transforms)


def build_adversary(learning_rate: float) -> Any:
    """A light multi-scale STFT discriminator with its optimizer and losses."""
    from audiocraft.adversarial.discriminators import MultiScaleSTFTDiscriminator
    from audiocraft.adversarial.losses import (
        AdversarialLoss,
        FeatureMatchingLoss,
        get_adv_criterion,
        get_fake_criterion,
        get_real_criterion,
    )  # fmt: skip

    disc = MultiScaleSTFTDiscriminator(
        8, n_ffts=[1024, 512, 256], hop_lengths=[256, 128, 64], win_lengths=[1024, 512, 256]
    )
    optimizer = torch.optim.Adam(disc.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    return AdversarialLoss(
        disc, optimizer, loss=get_adv_criterion("hinge"), loss_real=get_real_criterion("hinge"),
        loss_fake=get_fake_criterion("hinge"), loss_feat=FeatureMatchingLoss(),
    )  # fmt: skip


def save_codec(codec: PocketCodec, folder: Path) -> EncodecModel:
    """Convert to transformers and save."""
    model = EncodecModel(build_codec_config())
    model.load_state_dict(codec_to_transformers(codec.state_dict()))
    model.eval().save_pretrained(folder)
    return model


def check_conversion(codec: PocketCodec, model: EncodecModel, audio: Tensor) -> float:
    """Largest difference of the two reconstructions of (N, 1, samples).

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
