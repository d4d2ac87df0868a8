"""Tags in audio files as fields of a track: ID3, Vorbis comments, MP4, APEv2, ASF, RIFF and Matroska."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.field_names import Value, join_values, name_field, read_value

_ID3 = {
    "TIT2": "title", "TPE1": "artist", "TPE2": "album_artist", "TALB": "album", "TCOM": "composer", "TCON": "genre",
    "TMOO": "mood", "TBPM": "bpm", "TKEY": "key", "TDRC": "year", "TYER": "year", "COMM": "comment", "TIT1": "grouping",
    "GRP1": "grouping", "TLAN": "language",
}  # fmt: skip
_MP4 = {
    "\xa9nam": "title", "\xa9ART": "artist", "aART": "album_artist", "\xa9alb": "album", "\xa9wrt": "composer",
    "\xa9gen": "genre", "tmpo": "bpm", "\xa9day": "year", "\xa9cmt": "comment", "\xa9grp": "grouping",
}  # fmt: skip
_ASF = {"Title": "title", "Author": "artist", "Description": "comment"}
_SKIPPED = re.compile(r"(?i).*(picture|cover|replaygain|acoustid|musicbrainz|lyrics|encod|itun|serato).*")
_MAX_LETTERS = 500  # longer ones are lyrics, fingerprints and settings of programs
_NOTHING = frozenset({"", "other", "unknown", "undefined", "none", "n/a", "genre", "unclassifiable", "misc"})
_CAMELOT_MINOR = ("G#", "D#", "A#", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
_CAMELOT_MAJOR = ("B", "F#", "C#", "G#", "D#", "A#", "F", "C", "G", "D", "A", "E")


def read_tags(path: Path) -> dict[str, Value]:
    """Return the tags of a file by field, each with the tag that it comes from.

    Raises:
        DatasetError: the tags are damaged.
    """
    import mutagen

    try:
        with path.open("rb") as stream:
            found = mutagen.File(stream)
        written = list(_list_tags(found.tags)) if found is not None and found.tags else []
    except Exception as error:  # damaged tags raise errors of many kinds
        raise DatasetError(
            f"{spell_path(path)}: its tags cannot be read ({' '.join(str(error).split())[:200]}); write them again "
            "with a tag editor"
        ) from error
    fields: dict[str, Value] = {}
    for name, origin, given in written or list(_list_container_tags(path)):
        field = name_field(name)
        value = _clean(field, read_value(given))
        if value is not None and not _SKIPPED.fullmatch(field):
            fields.setdefault(field, Value(value, f"tag {origin}"))
    return fields


def _list_tags(tags: Any) -> Iterator[tuple[str, str, object]]:
    """Yield field, tag and value of what mutagen read."""
    kind = type(tags).__name__
    if hasattr(tags, "getall"):
        yield from _list_id3(tags)
    elif kind == "MP4Tags":
        for key, value in tags.items():
            if key == "gnre":
                continue  # mutagen has turned it into ©gen
            name = _MP4.get(key, key.rpartition(":")[2] if key.startswith("----:") else None)
            if name is not None:
                yield name, key, [_decode(item) for item in value]
    elif kind == "ASFTags":
        for key in dict.fromkeys(name for name, _ in tags):
            yield _ASF.get(key, _split_words(key.removeprefix("WM/"))), key, [str(item) for item in tags[key]]
    else:  # Vorbis comments and APEv2
        for key in tags.keys():  # noqa: SIM118  # not every kind can be iterated over
            value = tags[key]
            yield key, key, list(value) if isinstance(value, list | tuple) else str(value).split("\0")


def _list_id3(tags: Any) -> Iterator[tuple[str, str, object]]:
    for key, frame in tags.items():
        kind = key.partition(":")[0]
        if kind == "TXXX":
            yield frame.desc, f"TXXX:{frame.desc}", list(frame.text)
        elif kind == "TCON":
            yield "genre", kind, list(frame.genres)
        elif kind in {"TIPL", "TMCL", "IPLS"}:
            roles = [role for role, _ in frame.people if kind != "TIPL" or role.casefold() not in _CREW]
            yield "instruments", kind, roles
        elif kind == "COMM" and frame.desc.startswith(("iTun", "Songs-DB", "ID3v1")):
            continue
        elif kind in _ID3:
            yield _ID3[kind], kind, [str(text) for text in frame.text]


_CREW = frozenset(
    {"producer", "engineer", "mix", "mixer", "dj-mix", "arranger", "mastering", "executive producer"}
)


def _list_container_tags(path: Path) -> Iterator[tuple[str, str, object]]:
    """Yield what FFmpeg reads: RIFF's INFO and Matroska's tags, which mutagen does not know."""
    import av

    try:
        with av.open(str(path)) as container:
            streams = [stream.metadata for stream in container.streams.audio[:1]]
            tags: Iterable[Mapping[str, str]] = [container.metadata, *streams]
            yield from [(key, key, value) for each in tags for key, value in each.items()]
    except (av.FFmpegError, UnicodeDecodeError, OSError):
        return  # what no decoder opens is left out of the dataset with a reason


def _decode(item: object) -> object:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else item


def _split_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _clean(field: str, value: str | float | None) -> str | float | None:
    """Drop what says nothing, and write keys and tempos as people do."""
    if value is None or (isinstance(value, str) and len(value) > _MAX_LETTERS):
        return None
    if isinstance(value, str) and field in {"genre", "mood"}:
        return join_values(word for word in value.split(", ") if word.casefold() not in _NOTHING)
    if field == "bpm":
        return None if str(value).strip("0. ") == "" else value
    if field == "key" and isinstance(value, str):
        return spell_key(value)
    if field == "year" and isinstance(value, str):
        return value[:4] if re.match(r"\d{4}", value) else value
    return value


def spell_key(text: str) -> str | None:
    """Return a musical key in words: `Am`, `8A` and `A min` are `A minor`; None for `o`, which means no key."""
    if text.casefold() in {"o", "off key", *_NOTHING}:
        return None
    if found := re.fullmatch(r"0?([1-9]|1[0-2])([AaBb])", text):
        names = _CAMELOT_MINOR if found[2] in "Aa" else _CAMELOT_MAJOR
        return f"{names[int(found[1]) - 1]} {'minor' if found[2] in 'Aa' else 'major'}"
    if found := re.fullmatch(r"([A-Ga-g])\s*(#|♯|b|♭|)\s*(m|[Mm]in(?:or)?|M|[Mm]aj(?:or)?|)", text):
        sign = {"♯": "#", "♭": "b"}.get(found[2], found[2])
        return f"{found[1].upper()}{sign} {'minor' if found[3][:3] in {'m', 'min', 'Min'} else 'major'}"
    return text
