"""MusicGen Melody on transformers' classes, trained on text alone; clips may also follow melodies.

Its decoder has no cross-attention.  The sequence of a clip begins with the states of the melody, then those of the
text, then come the codes, and one causal attention reads all of it:

- A melody is repeated or cut to `chroma_length` frames and projected.  Without a melody, its states are those of the
  null melody, as transformers makes them: the first pitch class at every place.
- The null condition of guidance has the null melody, too.
- The null condition of guidance has zeros in place of the text's states, as many as the text has.  A dropped caption
  is replaced by the same in training.
- Captions of a batch differ in length.  Codes follow immediately after their own text, and the padding comes last,
  where no attention sees it.  Padding between text and codes, as transformers' processor makes it, would move their
  positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lora_bench.models.records import DecoderWeights, TextState
from lora_bench.models.transformers_musicgen import TransformersMusicGen


class TransformersMelody(TransformersMusicGen):
    """A frozen transformers MusicGen Melody with at most one adapter; arguments as of `TransformersMusicGen`."""

    def drop_text(self, state: TextState) -> TextState:
        """Return zeros of the caption's length: a clip's loss then depends on no other clip of the batch."""
        return torch.zeros_like(state)

    def null_melody(self) -> Tensor:
        """Return the states of the null melody [chroma_length, D] in the decoder's dtype."""
        chroma = torch.zeros(1, self._network.config.num_chroma)
        chroma[:, 0] = 1.0
        return self.encode_melody(chroma)

    def encode_melody(self, chroma: Tensor) -> Tensor:
        """See `MusicModel.encode_melody`; P is the model's `chroma_length`."""
        length = int(self._network.config.chroma_length)
        chroma = chroma[torch.arange(length) % len(chroma)].to(self.device)
        projection = getattr(self._network, "audio_enc_to_dec_proj", None)
        return (chroma if projection is None else projection(chroma)).to(self.dtype)

    def decoder_weights(self) -> DecoderWeights:
        """See `MusicModel.decoder_weights`."""
        return replace(super().decoder_weights(), melody=self.null_melody().detach())

    def _batch_text(self, text_states: Sequence[TextState | None]) -> tuple[Tensor, Tensor | None]:
        text, mask = super()._batch_text(text_states)
        # a projection has a bias, but the null condition is zero after it
        is_text = [state is not None and bool(state.any()) for state in text_states]
        return text * torch.tensor(is_text).to(text)[:, None, None], mask

    def _run_decoder(self, inputs: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        decoder = self._network.decoder.model.decoder
        codes = [embedding(inputs[:, book]) for book, embedding in enumerate(decoder.embed_tokens)]
        embedded = torch.stack(codes).sum(dim=0).to(text.dtype)
        melody = self.null_melody().expand(len(text), -1, -1)
        states = torch.cat([melody, text, embedded], dim=1)
        n_before, n_codes = melody.shape[1] + text.shape[1], embedded.shape[1]
        if text_mask is None:
            return self._read(states)[:, n_before:]
        n_padded = (1 - text_mask).sum(dim=1, keepdim=True)  # [B, 1]
        order = torch.arange(states.shape[1], device=self.device).expand(len(text), -1)
        # each row without its padding, and with its end repeated instead
        moved = torch.where(order < n_before - n_padded, order, order + n_padded).clamp(
            max=order.shape[1] - 1
        )
        hidden = self._read(states.take_along_dim(moved[..., None], dim=1))
        places = n_before - n_padded + torch.arange(n_codes, device=self.device)
        return hidden.take_along_dim(places[..., None], dim=1)

    def _read(self, states: Tensor) -> Tensor:
        return self._network.decoder.model(inputs_embeds=states, use_cache=False).last_hidden_state
