"""Words about music that are in no training caption but may be in a prompt, for the tokenizer only."""

GENRES = (
    "ambient, blues, bossa nova, celtic, chiptune, cinematic, classical, country, dance, disco, drum "
    "and bass, dub, dubstep, edm, electronic, epic, fantasy, film score, folk, funk, fusion, gospel, "
    "hip hop, house, indie, industrial, jazz, latin, lo-fi, lofi, lounge, march, medieval, metal, new "
    "age, opera, orchestral, orchestra, pop, punk, ragtime, rap, reggae, rock, samba, score, ska, soul, "
    "soundtrack, swing, symphonic, symphony, synthwave, tango, techno, trance, trap, trip hop, waltz, "
    "world, 8-bit, 16-bit, retro, video game, arcade, nintendo, game boy, maplestory, wesnoth, anime"
)
INSTRUMENTS = (
    "accordion, acoustic guitar, arpeggio, banjo, bass, bass guitar, bassoon, bells, brass, cello, "
    "celesta, choir, clarinet, claps, congas, cymbals, distorted guitar, double bass, drum machine, "
    "drums, electric guitar, electric piano, fiddle, flute, french horn, glockenspiel, guitar, "
    "harmonica, harp, harpsichord, hi-hat, horn, kick, mandolin, marimba, music box, oboe, organ, pad, "
    "pads, pan flute, percussion, piano, piccolo, pizzicato, pulse wave, recorder, sax, saxophone, "
    "shaker, sitar, snare, square wave, steel drums, string section, strings, sub bass, synth, synth "
    "lead, synthesizer, tambourine, timpani, triangle, trombone, trumpet, tuba, ukulele, vibraphone, "
    "viola, violin, vocals, voice, whistle, woodwind, xylophone"
)
MOODS = (
    "aggressive, airy, angry, anthemic, atmospheric, beautiful, bouncy, bright, calm, catchy, cheerful, "
    "chill, cold, cozy, cute, dark, deep, dramatic, dreamy, driving, eerie, emotional, energetic, "
    "ethereal, exciting, fast, festive, floating, fun, gentle, gloomy, groovy, happy, hard, haunting, "
    "heavy, heroic, hopeful, hypnotic, intense, joyful, light, lively, loud, lush, magical, majestic, "
    "melancholic, mellow, melodic, menacing, minimal, moody, mysterious, nostalgic, ominous, peaceful, "
    "playful, powerful, quiet, quirky, relaxing, romantic, sad, scary, serene, simple, slow, soaring, "
    "soft, solemn, soothing, sparse, spooky, suspenseful, sweet, tender, tense, tragic, triumphant, "
    "upbeat, uplifting, warm, whimsical, wild"
)
PLACES = (
    "adventure, army, background, battle, beach, boss, castle, cave, city, desert, dungeon, dwarves, "
    "elves, enemy, fight, forest, galaxy, henesys, hero, ice, journey, jungle, king, kingdom, knight, "
    "lava, level, machine, menu, mission, mountain, night, ocean, orc, palace, pirate, planet, quest, "
    "rain, robot, sea, ship, shop, sky, snow, space, spring, summer, sun, sunset, temple, theme, title "
    "screen, town, travel, undead, victory, village, war, water, wind, winter, world"
)
PHRASES = (
    "upbeat orchestral piece with jazz influences", "maplestory background music",
    "background music for a village", "a calm piano melody over soft strings",
    "energetic electronic track with driving drums", "slow tempo, 80 bpm", "fast tempo, 160 bpm",
    "in the key of c major", "in the key of a minor", "in d minor", "in f sharp minor",
    "a song with a strong beat and a catchy melody", "instrumental music without vocals",
    "high quality recording", "music in the style of", "a loop for a video game", "features a solo",
    "accompanied by", "followed by", "an instrumental piece featuring", "heavy metal guitars and drums",
    "chiptune loop with square wave lead", "orchestral battle theme with brass and timpani",
    "relaxing ambient pads", "the mood is", "medium tempo", "moderate",
)  # fmt: skip


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


GENERAL_TEXT: tuple[str, ...] = (
    *(word for words in (GENRES, INSTRUMENTS, MOODS, PLACES) for word in _split(words) for _ in range(3)),
    *(f"{mood} {genre} music" for mood, genre in zip(_split(MOODS), _split(GENRES) * 2, strict=False)),
    *(
        f"{mood} {place} theme with {tool}"
        for mood, place, tool in zip(
            _split(MOODS)[::-1], _split(PLACES) * 2, _split(INSTRUMENTS) * 2, strict=False
        )
    ),
    *PHRASES * 3,
)
