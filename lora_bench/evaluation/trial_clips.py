"""A trial's clips and their embeddings, which are kept for comparisons.

trials/<id>/embeddings/<encoder>/<prompt>.npz       generated clips
trials/<id>/embeddings/<encoder>/texts.npz          prompts, where the encoder knows texts
trials/<id>/embeddings/<encoder>/reference.json     which file below holds the reference
trials/<id>/embeddings/<encoder>@codec/<prompt>.npz clips of another system after the codec
trials/<id>/embeddings/<encoder>/reference_codec.json   the same after the codec, where a metric is codec-matched
reference_embeddings/<hash>.npz                     held-out recordings, shared by trials
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.artifacts import Embeddings, GeneratedClips, Manifest, Split
from lora_bench.evaluation.encoding import embed_reference, load_clips, prepare_encoder
from lora_bench.evaluation.melodies import describe_melodies
from lora_bench.evaluation.prompt_ratings import open_raters
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.names import CODEC_MATCHED, PROMPT_RATINGS
from lora_bench.planning.run_folder import EmbeddingFolder, TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.external import label_external
from lora_bench.slugs import prompt_slugs
from lora_bench.store import Store, hash_file, hash_json, to_jsonable, write_json

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder
    from lora_bench.models import MusicModel


@dataclass(frozen=True)
class EncodedTrial:
    """The embeddings of a trial by one encoder.

    Attributes:
        generated: by prompt.
        coded_generated: those of another system after the model's codec, for codec-matched metrics; None for the
            model's own, which are decoded from codes as they are.
        reference: excerpts of the held-out tracks.
        coded_reference: the same after the model's codec; None if no metric is codec-matched.
        texts: one vector per prompt, in their order; None if the encoder knows no texts.
        selection: the same clips with references of the selection side; None where there is no such side.
        unrated: prompts that name no tag, where the encoder rates clips by the tags of their prompts.
    """

    generated: Mapping[str, Embeddings]
    reference: Embeddings
    coded_reference: Embeddings | None
    texts: Embeddings | None
    selection: EncodedTrial | None = None
    coded_generated: Mapping[str, Embeddings] | None = None
    unrated: tuple[str, ...] = ()

    def clips_for(self, metric: Metric) -> Mapping[str, Embeddings]:
        """Return the clips that a metric compares."""
        coded = self.coded_generated if metric.codec_matched else None
        return self.generated if coded is None else coded


@dataclass(frozen=True)
class TrialClips:
    """A trial with its clips, its data and its model.

    Attributes:
        folder: the trial's.
        code_files: by prompt, the files of the clips' codes.
    """

    trial: TrialPlan
    model: MusicModel
    manifest: Manifest
    clips: Mapping[str, GeneratedClips]
    code_files: Mapping[str, tuple[Path, ...]]
    folder: Path
    store: Store

    @property
    def clip_s(self) -> float:
        """Length of a clip in seconds."""
        return self.trial.generation.clip_s

    @cached_property
    def sound_keys(self) -> dict[str, str]:
        """By prompt, a hash of the sound of its clips."""
        from lora_bench.stages.embed import hash_clips

        return {prompt: hash_clips(load_clips(clips)) for prompt, clips in self.clips.items()}

    def describe(self, side: Split = "eval") -> dict[str, str | int | float]:
        """Return the provenance of the clips: references of a side, model, sampling and seeds."""
        from lora_bench.stages.generate import read_methods

        if self.trial.external is not None:
            return self._describe_external(side)
        sampling = self.trial.generation
        codes = {files[0].parent for files in self.code_files.values() if files}
        methods = sorted({method for folder in codes for method in read_methods(folder)})
        return {
            "reference_hash": hash_json([self.manifest.key, side, self.clip_s]),
            **({"side": side} if side == "selection" else {}),
            "model": self.model.info.name,
            "model_weights_hash": self.model.info.weights_hash,
            "sampling": f"guidance {sampling.guidance:g}, temperature {sampling.temperature:g}, "
            f"top k {sampling.top_k}, clips of {sampling.clip_s:g} s"
            + (f" in windows that overlap by {sampling.overlap_s:g} s" if sampling.is_in_windows else "")
            + (f", decoded in {sampling.quantization}" if sampling.quantization else ""),
            **describe_melodies(self.trial),
            **({"decoding": " and ".join(methods)} if methods else {}),
            **({"adapter_scale": sampling.adapter_scale} if sampling.adapter_scale != 1.0 else {}),
            "generation_seed": sampling.seed,
            "train_seed": "none" if self.trial.train_seed is None else self.trial.train_seed,
        }

    def _describe_external(self, side: Split) -> dict[str, str | int | float]:
        files = [file for prompt in self.clips.values() for file in prompt.files]
        return {
            "reference_hash": hash_json([self.manifest.key, side, self.clip_s]),
            **({"side": side} if side == "selection" else {}),
            "model": f"external: {label_external(to_jsonable(self.trial.external))}",
            "clips_hash": hash_json([hash_file(file) for file in files]),
            "sampling": f"of another system, clips of {self.clip_s:g} s",
        }

    def encode(self, name: str) -> EncodedTrial:
        """Embed clips, references and prompts, and keep them for comparisons.

        Raises:
            UnscoredError: the encoder's weights are unavailable.
        """
        from lora_bench.stages.embed import save_embeddings

        place = TrialFolder(self.folder).embeddings(name)
        if name in PROMPT_RATINGS:
            raters, reference = open_raters(name, self.trial)
            generated = self._embed_clips(raters, place)
            self._keep_reference(reference, place.reference)
            unrated = tuple(prompt for prompt in self.trial.prompts if prompt not in raters)
            return EncodedTrial(generated, reference, None, None, unrated=unrated)
        encoder = prepare_encoder(
            name, self.model, self.manifest, self.clip_s, self.store, self.trial.encoders.get(name)
        )
        reference, coded = self._embed_references(encoder, name, "eval")
        generated = self._embed_clips(dict.fromkeys(self.trial.prompts, encoder), place)
        self._keep_reference(reference, place.reference)
        if coded is not None:
            self._keep_reference(coded, place.coded_reference)
        embed_text = getattr(encoder, "embed_text", None)
        texts: Embeddings | None = embed_text(list(self.clips)) if embed_text is not None else None
        if texts is not None:
            save_embeddings(texts, place.texts)
        recoded = None
        if coded is not None and self.trial.external is not None:
            recoded = self._embed_recoded(
                encoder, TrialFolder(self.folder).embeddings(f"{name}{CODEC_MATCHED}")
            )
        selection: EncodedTrial | None = None
        if self.manifest.has_selection:
            selection = EncodedTrial(
                generated,
                *self._embed_references(encoder, name, "selection"),
                texts=None,
                coded_generated=recoded,
            )
        return EncodedTrial(generated, reference, coded, texts, selection, recoded)

    def _embed_clips(self, encoders: Mapping[str, Encoder], place: EmbeddingFolder) -> dict[str, Embeddings]:
        """Embed the clips of every prompt that has an encoder, and keep them for comparisons."""
        from lora_bench.stages.embed import embed_clips, save_embeddings

        found: dict[str, Embeddings] = {}
        slugs = prompt_slugs(self.trial.prompts)
        for prompt, encoder in encoders.items():
            found[prompt] = embed_clips(
                encoder, load_clips(self.clips[prompt]), self.store, self.sound_keys[prompt]
            )
            save_embeddings(found[prompt], place.prompt(slugs[prompt]))
        return found

    def _embed_recoded(self, encoder: Encoder, place: EmbeddingFolder) -> dict[str, Embeddings]:
        """Embed another system's clips after the codec, as the references are, and keep them for comparisons."""
        from lora_bench.evaluation.codec import mark_recoded, through_codec
        from lora_bench.stages.embed import embed_clips, save_embeddings

        found: dict[str, Embeddings] = {}
        for prompt, slug in prompt_slugs(self.trial.prompts).items():
            coded = through_codec(self.model, load_clips(self.clips[prompt]))
            found[prompt] = mark_recoded(embed_clips(encoder, coded, self.store), self.model, "generated")
            save_embeddings(found[prompt], place.prompt(slug))
        return found

    def _embed_references(
        self, encoder: Encoder, name: str, side: Split
    ) -> tuple[Embeddings, Embeddings | None]:
        """Return one side's references, as they are and, if a metric asks for them, after the codec."""
        facts = self.manifest, self.clip_s, self.store
        is_matched = any(m.codec_matched and m.encoder == name for m in map(parse_metric, self.trial.metrics))
        coded = embed_reference(encoder, *facts, self.model, side) if is_matched else None
        return embed_reference(encoder, *facts, side=side), coded

    def _keep_reference(self, reference: Embeddings, pointer: Path) -> None:
        """Save references for comparisons, shared by trials, and name their file in `pointer`."""
        from lora_bench.stages.embed import save_embeddings

        key = hash_json([self.manifest.key, self.clip_s, dict(reference.provenance)])
        shared = TrialFolder(self.folder).run.reference_embeddings / f"{key}.npz"
        if not shared.is_file():
            save_embeddings(reference, shared)
        write_json(pointer, {"file": shared.name})
