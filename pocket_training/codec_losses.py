"""The codec's losses: mel spectrograms, a discriminator, and the balance of their gradients."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocket_training.shapes import SAMPLE_RATE_HZ

LOG_FLOORS = (1e-5, 1e-7)  # the card's, and a lower one for quiet bands


class MelLoss(nn.Module):
    """L1 of linear and log10 mel spectrograms at four scales, with audiocraft's transforms."""

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
        """Return the distance of two signals (B, 1, samples)."""
        loss = fake.new_zeros(())
        for transform in self.transforms:
            a, b = transform(fake), transform(real)
            logs = [F.l1_loss((a + floor).log10(), (b + floor).log10()) for floor in LOG_FLOORS]
            loss = loss + F.l1_loss(a, b) + torch.stack(logs).mean()
        return loss / len(self.transforms)


class GradientNorms:
    """Moving averages of the losses' gradient norms, like flashy's `averager`, with a state to save."""

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self.total: dict[str, float] = {}
        self.weight: dict[str, float] = {}

    def __call__(self, norms: dict[str, Any]) -> dict[str, float]:
        """Add one step's norms; return the averages of these losses."""
        for name, norm in norms.items():
            self.total[name] = self.total.get(name, 0.0) * self.decay + float(norm)
            self.weight[name] = self.weight.get(name, 0.0) * self.decay + 1
        return {name: self.total[name] / self.weight[name] for name in norms}


def build_balancer(weights: dict[str, float], norms: GradientNorms) -> Any:
    """Build audiocraft's balancer; `weights` are the losses' shares of the gradient."""
    from audiocraft.losses import Balancer

    balancer = Balancer(weights)
    balancer.averager = norms
    return balancer


def build_adversary(learning_rate: float, device: torch.device) -> Any:
    """Build a light multi-scale STFT discriminator with its optimizer and losses."""
    from audiocraft.adversarial.discriminators import MultiScaleSTFTDiscriminator
    from audiocraft.adversarial.losses import (
        AdversarialLoss,
        FeatureMatchingLoss,
        get_adv_criterion,
        get_fake_criterion,
        get_real_criterion,
    )  # fmt: skip

    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same in every process, and after a resumption
        disc = MultiScaleSTFTDiscriminator(
            8, n_ffts=[2048, 1024, 512], hop_lengths=[512, 256, 128], win_lengths=[2048, 1024, 512]
        ).to(device)
    optimizer = torch.optim.Adam(disc.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    return AdversarialLoss(
        disc, optimizer, loss=get_adv_criterion("hinge"), loss_real=get_real_criterion("hinge"),
        loss_fake=get_fake_criterion("hinge"), loss_feat=FeatureMatchingLoss(),
    )  # fmt: skip
