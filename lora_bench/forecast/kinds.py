"""How large each kind of adapter is on a layer, and what a kind cannot adapt; as PEFT's layers make them.

Tests compare the counts with adapters that PEFT has made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_bench.forecast.shapes import Linear, ModelShape
from lora_bench.spec.kinds import CHANGING_BASE, LOW_RANK
from lora_bench.spec.schema import LoraSpec


@dataclass(frozen=True)
class LayerSize:
    """An adapter's numbers in one layer: those that are trained, those in its file, and the file's tensors."""

    trained: int
    saved: int
    n_tensors: int


def size_layer(lora: LoraSpec, linear: Linear) -> LayerSize:
    """Return the size of an adapter on one layer."""
    rank, n_in, n_out = lora.rank, linear.n_in, linear.n_out
    if lora.kind in LOW_RANK:
        magnitude = n_out if lora.is_dora else 0
        n_saved = 2 if lora.kind in CHANGING_BASE else 1  # as plain LoRA of twice the rank
        trained = rank * (n_in + n_out) + magnitude
        return LayerSize(trained, n_saved * rank * (n_in + n_out) + magnitude, 3 if lora.is_dora else 2)
    if lora.kind == "delora":
        return LayerSize(rank * (n_in + n_out) + 1, rank * (n_in + n_out) + 1 + n_in, 4)
    trained, n_tensors = {
        "loha": lambda: (2 * rank * (n_in + n_out), 4),
        "lokr": lambda: _size_lokr(lora, n_in, n_out),
        "oft": lambda: (n_in // lora.block_size * lora.block_size * (lora.block_size - 1) // 2, 1),
        "vera": lambda: (rank + n_out, 2),
        "ia3": lambda: (n_in if linear.name.endswith(".fc2") else n_out, 1),
        "miss": lambda: (rank * n_out, 1),
        "full": lambda: (linear.n_in * linear.n_out + linear.n_bias, 2 if linear.n_bias else 1),
    }[lora.kind]()
    return LayerSize(trained, trained, n_tensors)


def count_shared(lora: LoraSpec, linears: Sequence[Linear]) -> int:
    """Count the numbers in an adapter's file that all layers share: the random projections of VeRA."""
    if lora.kind != "vera" or not linears:
        return 0
    return lora.rank * (max(each.n_in for each in linears) + max(each.n_out for each in linears))


def _size_lokr(lora: LoraSpec, n_in: int, n_out: int) -> tuple[int, int]:
    first_in, second_in = factorize(n_in, lora.factor)
    first_out, second_out = factorize(n_out, lora.factor)
    if lora.rank < max(second_out, second_in) / 2:
        return first_out * first_in + lora.rank * (second_out + second_in), 3
    return first_out * first_in + second_out * second_in, 2


def factorize(size: int, factor: int | None) -> tuple[int, int]:
    """Return two factors of a size, the smaller first: `factor` itself, or the largest divisor up to it.

    Without a factor, they are as equal as they can be.
    """
    if factor is not None and size % factor == 0:
        return factor, size // factor
    limit = size if factor is None else factor
    first = max(each for each in range(1, int(size**0.5) + 1) if size % each == 0 and each <= limit)
    return first, size // first


def list_weighted_parts(shape: ModelShape) -> tuple[Linear, ...]:
    """List the decoder's layers, norms and embeddings: what full fine-tuning can train.

    In a melody model that is not the projection of the text (see `MusicModel.weighted_module_names`).
    """
    sizes = shape.decoder
    stem = "decoder.model.decoder"
    places = ("self_attn", "final") if sizes.melody is not None else ("self_attn", "encoder_attn", "final")
    norms = [f"{stem}.layer_norm"] + [
        f"{stem}.layers.{layer}.{name}_layer_norm" for layer in range(sizes.n_layers) for name in places
    ]
    return (
        *(each for each in shape.linears if sizes.melody is None or each.group != "conditioning"),
        *(Linear(name, "norms", 1, sizes.width, n_bias=sizes.width) for name in norms),
        *(
            Linear(f"{stem}.embed_tokens.{book}", "embeddings", sizes.codebook_size + 1, sizes.width)
            for book in range(sizes.n_codebooks)
        ),
    )


def find_misfits(lora: LoraSpec, linears: Sequence[Linear]) -> Iterator[str]:
    """Yield what a kind cannot adapt among the layers that its targets match."""
    widths = sorted({linear.n_in for linear in linears})
    if lora.kind == "oft" and (odd := [n for n in widths if n % lora.block_size]):
        yield (
            f"lora.block_size {lora.block_size} does not divide the {odd[0]} inputs of a target, which kind `oft` "
            "cuts into blocks; choose a divisor"
        )
    if lora.kind == "miss" and (narrow := [n for n in widths if n < lora.rank]):
        yield f"lora.rank {lora.rank} is more than the {narrow[0]} inputs of a target; kind `miss` needs a lower rank"
    if lora.kind == "eva" and (narrow := [n for n in widths if n < 2 * lora.rank]):
        yield (
            f"lora.rank {lora.rank} is more than half of the {narrow[0]} inputs of a target, which is as far as PEFT's "
            "decomposition for kind `eva` goes; choose a lower rank"
        )
    smallest = min((min(linear.n_in, linear.n_out) for linear in linears), default=lora.rank)
    if lora.kind in CHANGING_BASE and smallest < lora.rank:
        yield (
            f"lora.rank {lora.rank} is more than the {smallest} directions of a target's weights, from which kind "
            f"`{lora.kind}` begins; choose a lower rank"
        )
