"""Descriptions of metrics, one sentence each."""

from __future__ import annotations

from lora_bench.metrics.names import CODEC_MATCHED

_DISTANCES = {
    "fad": "squared Frechet distance between Gaussians fitted to the embeddings",
    "mmd": "100 times the unbiased squared maximum mean discrepancy of the embeddings",
}
_ENCODERS = {
    "mfcc20-seed": (
        "20 MFCC at each file's own rate, every frame standardised across its coefficients; bounded by 40, "
        "nearly blind to loudness and spectral tilt"
    ),
    "mfcc20": "20 MFCC at the model's rate, each coefficient scaled by a factor fitted on the training side",
    "encodec": "the latents of the model's own codec before quantisation",
    "musicnn": "the 200-dimensional penultimate layer of the music tagger musicnn",
    "vggish": "128-dimensional torchvggish vectors without PCA and final ReLU",
    "pann": "2048-dimensional Cnn14 vectors",
    "clap": "512-dimensional LAION CLAP vectors",
    "encodec-24k": "the latents of the 24 kHz EnCodec before quantisation",
    "mert": "768-dimensional MERT vectors",
}
_OTHERS = {
    "clap_score": "cosine similarity of the clip's and the prompt's CLAP embeddings",
}


def describe_metric(metric: str) -> str:
    """Return what the number is; empty for a metric that this module does not know.

    A bare encoder name stands for its Frechet distance.
    """
    if metric in _OTHERS:
        return _OTHERS[metric]
    plain = metric.removesuffix(CODEC_MATCHED)
    distance, _, encoder = plain.rpartition("/")
    distance = distance or "fad"
    if distance not in _DISTANCES or encoder not in _ENCODERS:
        return ""
    matched = (
        "" if plain == metric else "; the references have passed through the model's codec, as the clips have"
    )
    return f"{_DISTANCES[distance]}: {_ENCODERS[encoder]}{matched}"
