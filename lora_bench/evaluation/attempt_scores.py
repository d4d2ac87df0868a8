"""The score of an attempt of `tune`: clips against the selection side, and nothing else of the data."""

from __future__ import annotations

from lora_bench.artifacts import Unscored
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.encoding import embed_reference, load_clips, prepare_encoder
from lora_bench.evaluation.trial_clips import EncodedTrial, TrialClips
from lora_bench.evaluation.trial_scores import ScoreSheet, score_metric
from lora_bench.metrics import parse_metric
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress
from lora_bench.store import write_json


def score_attempt(made: TrialClips, metric: str, progress: Progress) -> None:
    """Write `scores.json` with the scores of one metric under `selection`; without weights, with the reason.

    Args:
        made: the attempt, with a sealed manifest.
        metric: a distance from recordings.
        progress: told about prompts.

    Raises:
        ScoreError, AudioFileError: a clip is damaged; names it.
    """
    from lora_bench.stages.embed import embed_clips

    parsed, sheet = parse_metric(metric, made.trial.distances), ScoreSheet()
    progress.start("score", len(made.clips))
    try:
        data = made.manifest, made.clip_s, made.store
        encoder = prepare_encoder(parsed.encoder, made.model, *data, made.trial.encoders.get(parsed.encoder))
        codec = made.model if parsed.codec_matched else None
        reference = embed_reference(encoder, *data, codec, "selection")
        generated = {
            prompt: embed_clips(encoder, load_clips(clips), made.store)
            for prompt, clips in made.clips.items()
        }
        encoded = EncodedTrial(generated, reference, None, texts=None)
        score_metric(parsed, encoded, made.trial.own_prompts, sheet, made.describe("selection"))
    except UnscoredError as reason:
        sheet.unscored += [Unscored(metric, prompt, str(reason)) for prompt in (*made.clips, None)]
    progress.advance(len(made.clips), note=metric)
    empty = ScoreSheet().arrange([metric])
    write_json(TrialFolder(made.folder).scores, {**empty, "selection": sheet.arrange([metric])})
