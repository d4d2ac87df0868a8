"""The text tokenizer: a unigram vocabulary learnt from captions, with single characters as a fallback."""

import io
import string
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from transformers import T5Tokenizer

from pocket_training.shapes import TEXT_VOCAB_SIZE
from pocket_training.vocabulary import GENERAL_TEXT

# Text in these characters never gives <unk>
CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def train_tokenizer(captions: Iterable[str], size: int = 960) -> T5Tokenizer:
    """Learn `size` pieces from captions and from general words about music.

    Args:
        captions: Training captions; order does not matter, repeats weigh.
        size: Pieces of sentencepiece's unigram model, before missing characters are added.

    Raises:
        ValueError: More pieces came out than the text encoder has embeddings.
    """
    model = io.BytesIO()
    lines = [*captions, *GENERAL_TEXT]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=size,
        model_type="unigram",
        character_coverage=1.0,
        hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    learnt = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(learnt.id_to_piece(i), learnt.get_score(i)) for i in range(3, learnt.get_piece_size())]
    known = {piece for piece, _ in pieces}
    worst = min(score for _, score in pieces) - 1.0
    pieces += [(char, worst) for char in ["\u2581", *CHARACTERS] if char not in known]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces]
    if len(vocab) > TEXT_VOCAB_SIZE:
        raise ValueError(
            f"{len(vocab)} pieces, but the text encoder has {TEXT_VOCAB_SIZE} embeddings: lower size={size}"
        )
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=128)


def load_tokenizer(folder: Path) -> T5Tokenizer:
    """Load a tokenizer that `save_pretrained` wrote."""
    return T5Tokenizer.from_pretrained(folder)
