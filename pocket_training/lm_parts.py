"""The language model in training: losses, first weights, optimizers and averages."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MusicgenForConditionalGeneration, T5Tokenizer

from pocket_training.shapes import N_CODEBOOKS
from pocket_training.tokens import delay_codes

PEAK_RATE, MUON_PEAK_RATE = 2e-3, 4e-3


def compute_losses(
    model: MusicgenForConditionalGeneration,
    codes: Tensor,
    text: dict[str, Tensor],
    drop: Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy of each crop and codebook in nats.

    Args:
        model: The whole model; its codec is not used.
        codes: (B, K, T).
        text: The tokenizer's `input_ids` and `attention_mask`, (B, L).
        drop: (B,), true where the caption is replaced by the null condition; None drops none.

    Returns:
        (B, K), mean over the T frames.
    """
    inputs, targets, mask = delay_codes(codes, model.config.decoder.vocab_size)
    B, K, P = inputs.shape
    attention = text["attention_mask"]
    if drop is not None:
        attention = attention * (~drop)[:, None]
    # the encoder must see its tokens even if the decoder does not: attention over nothing gives NaN
    states = model.text_encoder(input_ids=text["input_ids"], attention_mask=text["attention_mask"])[0]
    states = model.enc_to_dec_proj(states) * attention[..., None]
    logits = model.decoder(
        input_ids=inputs.reshape(B * K, P),
        encoder_hidden_states=states,
        encoder_attention_mask=attention,
        use_cache=False,
    ).logits  # (B x K, P, V)
    logits = logits.view(B, K, P, -1)[:, mask]  # (B, K x T, V): the positions that hold a code
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets[:, mask].flatten(), reduction="none")
    return loss.view(B, K, -1).mean(-1)


def evaluate_model(
    model: MusicgenForConditionalGeneration,
    tokenizer: T5Tokenizer,
    codes: Tensor,
    captions: list[str],
    batch: int = 8,
) -> Tensor:
    """Compute the losses (N, K) of crops (N, K, T) with their captions."""
    was_training = model.training
    model.eval()
    losses = []
    with torch.no_grad():
        for at in range(0, len(codes), batch):
            text = tokenize(tokenizer, captions[at : at + batch], model.device)
            losses.append(compute_losses(model, codes[at : at + batch].to(model.device), text))
    model.train(was_training)
    return torch.cat(losses).cpu()


def tokenize(tokenizer: T5Tokenizer, captions: list[str], device: torch.device) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` of captions, (B, L)."""
    return dict(tokenizer(captions, return_tensors="pt", padding=True, truncation=True).to(device))


def start_embeddings(model: MusicgenForConditionalGeneration) -> None:
    """Start embeddings and heads at the codec's own code vectors, each codebook in its own quarter of the space.

    With random rows of 0.02, as in MusicGen, the sinusoidal positions (about 0.7) drown the codes, and similar codes
    must be learnt one by one: 80 steps reached only the unigram.
    """
    width = model.decoder.config.hidden_size
    rotation = torch.linalg.qr(torch.randn(width, width))[0] * (width / N_CODEBOOKS) ** 0.5
    for k in range(N_CODEBOOKS):
        vectors = model.audio_encoder.quantizer.layers[k].codebook.embed  # (1024, D)
        vectors = (vectors - vectors.mean(0)) / vectors.std()
        rows = vectors @ rotation[k * vectors.shape[1] : (k + 1) * vectors.shape[1]]  # (1024, width)
        rows = rows / rows.std()
        model.decoder.model.decoder.embed_tokens[k].weight.data[: len(rows)] = 0.5 * rows
        model.decoder.lm_heads[k].weight.data[: len(rows)] = 0.05 * rows


def start_text(model: MusicgenForConditionalGeneration, out_scale: float = 0.3) -> None:
    """Start text encoder, projection and cross-attention so that words reach the decoder at full strength.

    With transformers' initial weights the states are about 0.03: the decoder ignores them, the text encoder gets no
    gradient, and captions have no effect after 490 steps.

    Args:
        model: Changed in place.
        out_scale: Initial scale of cross-attention's output; with 0 the model starts as if without text.
    """
    nn.init.normal_(model.text_encoder.shared.weight, std=1.0)
    for module in model.text_encoder.modules():
        if isinstance(module, nn.Linear):  # small branches: at first the states are the words themselves
            nn.init.normal_(module.weight, std=0.3 / module.in_features**0.5)
    model.text_encoder.encoder.final_layer_norm.weight.data.fill_(1.0)
    nn.init.orthogonal_(model.enc_to_dec_proj.weight, gain=2**0.5)  # 128 -> 256: unit variance
    nn.init.zeros_(model.enc_to_dec_proj.bias)
    for layer in model.decoder.model.decoder.layers:
        attention = layer.encoder_attn
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            nn.init.normal_(linear.weight, std=1 / linear.in_features**0.5)
        attention.out_proj.weight.data.mul_(out_scale)


def freeze_music(model: MusicgenForConditionalGeneration) -> None:
    """Leave only text encoder, projection and cross-attention to train: without text nothing changes."""
    for name, parameter in model.decoder.named_parameters():
        parameter.requires_grad_("encoder_attn" in name)


def measure_gain(
    model: MusicgenForConditionalGeneration, tokenizer: T5Tokenizer, codes: Tensor, captions: list[str]
) -> float:
    """Measure by how many nats per code the right caption beats another one, on codes (N, K, T)."""
    wrong = captions[len(captions) // 2 :] + captions[: len(captions) // 2]
    right_loss = evaluate_model(model, tokenizer, codes, captions)
    return round(float((evaluate_model(model, tokenizer, codes, wrong) - right_loss).mean()), 4)


def build_optimizers(
    model: MusicgenForConditionalGeneration, text_only: bool = False
) -> list[torch.optim.Optimizer]:
    """Build Muon for self-attention and feed-forward, AdamW for all other trained weights.

    Cross-attention belongs to AdamW: Muon's full-rank steps suppress the weak signal of the captions.
    """
    if text_only:
        text = [p for p in model.parameters() if p.requires_grad]
        return [torch.optim.AdamW(text, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0)]
    matrices = [
        p
        for name, p in model.decoder.named_parameters()
        if ".layers." in name and "encoder_attn" not in name and p.ndim == 2 and p.requires_grad
    ]
    chosen = {id(p) for p in matrices}
    modules: tuple[nn.Module, ...] = (model.decoder, model.text_encoder, model.enc_to_dec_proj)
    rest = [p for module in modules for p in module.parameters() if id(p) not in chosen and p.requires_grad]
    return [Muon(matrices), torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw", ns_steps=4)` with its products in float32.

    torch's are in bfloat16 always: on a processor without units for it a step took 12 s on one, instead of 0.5 s.
    """

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        super().__init__(matrices, {"lr": MUON_PEAK_RATE, "weight_decay": 0.05, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:
        """Take one step for all matrices with a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for matrix in (p for p in group["params"] if p.grad is not None):
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - momentum)
                update = self._orthogonalise(matrix.grad.lerp(average, momentum))
                matrix.mul_(1 - lr * group["weight_decay"])
                matrix.add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)

    @staticmethod
    def _orthogonalise(matrix: Tensor) -> Tensor:
        """Bring singular values near one by Newton and Schulz's iteration."""
        is_tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if is_tall else matrix
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(4):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.T if is_tall else x


class Average:
    """Exponential moving average of weights and buffers."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Args: `model` is a copy of the one that is trained; it becomes the average."""
        self.model, self.decay, self.n = model.eval(), decay, 0
        self.model.requires_grad_(False)

    def update(self, model: nn.Module) -> None:
        """Add one step's weights; in the first steps the initial weights count less."""
        self.n += 1
        decay = min(self.decay, self.n / (self.n + 9))
        # buffers too: the averaged encoder needs averaged codebooks
        tensors = [(*one.parameters(), *one.buffers()) for one in (self.model, model)]
        for ours, theirs in zip(*tensors, strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs.detach(), 1 - decay)
            else:
                ours.copy_(theirs)
