"""Sources of the training music: Debian packages, their licences, and words about their character.

Do not add Wesnoth's music, drascula-music, asc-music, the planetblupi packages or the project's own chiptune genre:
they are held out for evaluation.  fillets-ng-data is the final test: do not measure on it, or listen to it, before the
weights are final.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """One Debian package of music."""

    package: str
    """Its name, and its folder's name under the music folder (unpacked with `dpkg-deb -x`)."""
    pattern: str
    """Glob of its tracks under that folder."""
    licence: str
    """Short form of what its copyright file states for the music."""
    words: tuple[str, ...]
    """Caption words that hold for every track."""
    by_name: dict[str, str] = field(default_factory=dict)
    """Piece of a file name -> caption words, comma separated."""
    exclude: tuple[str, ...] = ()
    """Pieces of paths that are not music, or are held out."""


SOURCES: tuple[Source, ...] = (
    Source(
        "warzone2100-music", "usr/**/*.opus", "GPL-2+; aftermath album also CC-BY-SA-3.0+",
        ("dark ambient", "electronic", "cinematic", "science fiction strategy game", "war"),
        {
            "legacy": "industrial, synthesizer", "original": "synth pads",
            "aftermath": "soundtrack, dramatic",
        },
    ),
    Source(
        "nexuiz-music", "**/*.ogg", "GPL-2+",
        ("electronic", "shooter game", "synthesizer", "driving beat", "techno"), {},
    ),
    Source(
        "ufoai-music", "**/*.ogg", "GPL-2+, CC-BY-3.0, CC-BY-SA-3.0 or public domain, by file",
        ("science fiction game", "soundtrack", "tense"),
        {
            "psymong": "rock, electric guitar, band", "crystan": "orchestral, cinematic, strings",
            "marine": "military, action", "battle": "battle, dramatic", "van_": "orchestral, epic",
            "david": "atmospheric, synth", "intro": "sad, emotional", "geo": "ambient, calm",
            "industrial": "industrial",
        },
        exclude=("sound/",),
    ),
    Source(
        "singularity-music", "usr/**/*.ogg", "CC-BY-SA-3.0",
        ("ambient", "electronic", "atmospheric", "synthesizer", "contemplative"),
        {
            "win": "triumphant", "lose": "sad, dark", "nebula": "space", "orbital": "space",
            "threat": "menacing",
        },
    ),
    Source(
        "hyperrogue-music", "usr/**/music/*.ogg", "CC-BY-SA-3.0",
        ("fantasy game", "mysterious", "background music"),
        {
            "palace": "oriental", "ocean": "calm, sea", "caribbean": "tropical, pirate",
            "jungle": "jungle, percussion", "graveyard": "spooky, dark", "hell": "dark, menacing",
            "icyland": "cold, winter", "desert": "desert", "hunting": "hunt, tense", "mountain": "mountain",
            "caves": "cave", "laboratory": "electronic",
        },
    ),
    Source(
        "supertux-data", "usr/**/music/**/*.ogg", "GPL-2+",
        ("platform game", "playful", "melodic", "background music"),
        {
            "forest": "forest", "ghost": "spooky, haunted", "antarctic": "snow, ice, winter",
            "castle": "castle, dark", "christmas": "christmas, festive, bells",
            "halloween": "halloween, spooky", "tropical": "tropical, summer",
            "boss": "boss battle, intense", "battle": "battle, intense", "cave": "cave, mysterious",
            "retro": "retro", "chipdisko": "disco, electronic", "march": "march", "airship": "adventure",
        },
    ),
    Source(
        "hedgewars-data", "usr/**/Music/*.ogg", "GPL-2", ("comic game", "playful", "lively", "band"),
        {
            "beach": "beach, summer", "castle": "castle, medieval", "hell": "dark, metal",
            "halloween": "spooky", "oriental": "oriental, asian", "pirate": "pirate, sea shanty",
            "rock": "rock, electric guitar", "jungle": "jungle, percussion", "snow": "winter, snow",
            "city": "city, funk", "desert": "desert, arabic", "olympics": "fanfare, brass",
            "underwater": "underwater, calm", "nature": "nature, calm", "sheep": "country",
        },
        exclude=("_sd", "sdmusic"),
    ),
    Source(
        "flare-game", "usr/**/music/*.ogg", "CC-BY-SA-3.0+",
        ("fantasy role playing game", "orchestral", "epic", "cinematic"),
        {
            "town": "town, calm", "boss": "boss battle, intense", "battle": "battle, intense, percussion",
            "cave": "cave, dark", "dungeon": "dungeon, dark", "forest": "forest, peaceful",
            "title": "main theme, heroic", "safe": "calm, peaceful", "magical": "magical, mysterious",
            "overworld": "adventure, heroic",
        },
        exclude=("wind_ambient",),
    ),
    Source(
        "lincity-ng-data", "usr/**/music/**/*.ogg", "GPL-2+",
        ("city building game", "relaxed", "background music"), {"blues": "blues, piano"},
    ),
    Source(
        "widelands-data", "usr/**/music/*.ogg", "GPL-2+; three tracks CC-BY-SA-3.0",
        ("medieval strategy game", "folk", "peaceful", "acoustic", "background music"),
        {"menu": "main theme", "intro": "main theme"},
    ),
    Source(
        "openttd-openmsx", "usr/**/*.mid", "GPL-2 (scores), MIT (FluidR3 GM soundfont)",
        ("transport game", "cheerful", "band", "instrumental"),
        {
            "blues": "blues, jazz", "boogi": "boogie, jazz, piano", "run": "lively", "harp": "harp",
            "relax": "relaxed, calm", "snow": "winter", "wood": "woodwind", "bw": "blues",
            "slow": "slow, easy", "modern": "modern, electronic",
        },
    ),
)  # fmt: skip

RENDERED = ("scores", "openttd-openmsx")
"""Sources that are rendered from MIDI, not recorded; figures of the codec leave them out."""

SCORES = Source("scores", "", "written by this package's `scores.py`; MIT (FluidR3 GM soundfont)", ())
