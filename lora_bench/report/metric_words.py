"""Descriptions of metrics, one sentence each."""

from __future__ import annotations

from lora_bench.metrics.names import CODEC_MATCHED, MELODY_AGREEMENT, TAG_ADHERENCE

_DISTANCES = {
    "fad": "squared Frechet distance between Gaussians fitted to the embeddings",
    "mmd": "100 times the unbiased squared maximum mean discrepancy of the embeddings",
}
_PLUGINS = {
    "mad": "-ln of MAUVE, over bins of the embeddings by k-means",
    "label-kl": "KL divergence of the clips' mean probabilities from those of the references",
    "mean": "mean over clips",
}
_ENCODERS = {
    "mfcc20-seed": (
        "20 MFCC at each file's own rate, every frame standardised across its coefficients; bounded by 40, "
        "and moved by loudness alone"
    ),
    "mfcc20": "20 MFCC at the model's rate, each coefficient scaled by a factor fitted on the training side",
    "encodec": "the latents of the model's own codec before quantisation",
    "musicnn": "the 200-dimensional penultimate layer of the music tagger musicnn",
    "musicnn-tags": "musicnn's distribution over 50 tags, softmax of their logits, per 3 s",
    "vggish": "128-dimensional torchvggish vectors without PCA and final ReLU",
    "pann": "2048-dimensional Cnn14 vectors",
    "clap": "512-dimensional LAION CLAP vectors",
    "encodec-24k": "the latents of the 24 kHz EnCodec before quantisation",
    "tempo": "octaves from 120 beats per minute, one value per clip",
    "pulse": "clarity of the beat from 0 to 1, one value per clip",
    "onsets": "onsets per second, one value per clip",
    "loudness": "integrated loudness in LUFS, one value per clip",
    "loudness-range": "loudness range (EBU Tech 3342) in LU, one value per clip",
    "brightness": "octaves of the spectral centroid above 1 kHz, one value per clip",
    "tonality": "12 chroma values per clip, turned to one key",
    "mert": "MERT's states of one layer, pooled over each clip",
    "muq": "MuQ's states of one layer, pooled over each clip",
    "passt": "PaSST's probabilities of 527 labels, per 10 s",
    "audiobox-ce": "content enjoyment as Audiobox Aesthetics predicts it, 1 to 10",
    "audiobox-cu": "content usefulness as Audiobox Aesthetics predicts it, 1 to 10",
    "audiobox-pc": "production complexity as Audiobox Aesthetics predicts it, 1 to 10",
    "audiobox-pq": "production quality as Audiobox Aesthetics predicts it, 1 to 10",
}
_OTHERS = {
    "clap_score": "cosine similarity of the clip's and the prompt's CLAP embeddings",
    MELODY_AGREEMENT: (
        "share of a clip's frames, eight per second, whose strongest pitch class is that of the clip's melody; chance "
        "is about 0.08"
    ),
    TAG_ADHERENCE: (
        "mean probability that the music tagger musicnn gives the tags that the clip's prompt names; levels of "
        "different tags do not compare"
    ),
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
    distances = _DISTANCES | _PLUGINS
    if distance not in distances or encoder not in _ENCODERS:
        return ""
    matched = (
        "" if plain == metric else "; the references have passed through the model's codec, as the clips have"
    )
    return f"{distances[distance]}: {_ENCODERS[encoder]}{matched}"
