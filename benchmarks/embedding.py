"""Embedding throughput: our encoders against frechet-audio-distance on the same networks and files.

Both sides read the same wav files (32 kHz, as MusicGen writes them), bring them to the network's rate and run
the same network with the same random weights.  Each side runs in a process of its own, after one clip to
warm up; the figures are seconds of audio per CPU second (which other work on the machine lengthens little),
their ratio, and the process's peak memory.  The two sides' vectors are compared, so that a ratio of unequal
work is never shown; what differs between them is the resampler (soxr HQ against resampy), so `--rate 0`, files
at the network's rate, gives the comparison without it.

    python benchmarks/embedding.py --clips 24 --seconds 8 --json embedding.json

laion_clap, which the package imports and which fetches tokenizers on import, is replaced by an empty module.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

RATES_HZ = {"pann": 16_000, "pann-32k": 32_000, "encodec-24k": 24_000}
SIDES = ("theirs", "ours")
MAX_DIFFERENCE = 1e-3  # largest difference of vectors, relative to their spread, without resampling


def write_clips(folder: Path, n_clips: int, seconds: float, rate_hz: int) -> None:
    """Notes with noise, as 16-bit wav files."""
    from lora_bench.audio import save_wav

    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    for index in range(n_clips):
        tones = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(100, 4000, 5))
        audio = 0.1 * tones * (0.5 + 0.5 * np.sin(2 * np.pi * t)) + rng.normal(0, 0.01, len(t))
        save_wav(folder / f"{index:03}.wav", audio[None].astype(np.float32), rate_hz)


def save_random_weights(name: str, folder: Path) -> None:
    """A checkpoint of the encoder's own network, where both sides look for it."""
    import torch

    torch.manual_seed(0)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if name == "encodec-24k":
        from encodec import EncodecModel

        state = EncodecModel.encodec_model_24khz(pretrained=False).state_dict()
        torch.save(state, folder / "checkpoints" / "encodec_24khz-d7cc33bc.th")
        return
    from lora_bench.encoders.checkpoints import import_fad_networks
    from lora_bench.encoders.pretrained import PANN_RATES

    rate_hz, class_name, file_name, window, hop, fmax = PANN_RATES[name]
    settings = {"window_size": window, "hop_size": hop, "mel_bins": 64, "fmin": 50, "fmax": fmax}
    network = getattr(import_fad_networks(name), class_name)(sample_rate=rate_hz, classes_num=527, **settings)
    torch.save({"model": network.state_dict()}, folder / file_name)


def accept_any_checksum(weights: Path) -> None:
    """Random weights have not the published file's checksum, which encodec asks for."""
    import encodec.model
    import torch

    encodec.model._check_checksum = lambda *_: None
    path = weights / "checkpoints" / "encodec_24khz-d7cc33bc.th"
    torch.hub.load_state_dict_from_url = lambda *_, **__: torch.load(path)


def embed_theirs(name: str, audio: Path, warm: Path, weights: Path) -> tuple[np.ndarray, float]:
    """Vectors by the package's loader and loop, and the seconds they took."""
    sys.modules["laion_clap"] = ModuleType("laion_clap")
    from frechet_audio_distance import FrechetAudioDistance

    model_name = "encodec" if name == "encodec-24k" else "pann"
    fad = FrechetAudioDistance(ckpt_dir=str(weights), model_name=model_name, sample_rate=RATES_HZ[name])
    load = fad._FrechetAudioDistance__load_audio_files

    def embed(folder: Path) -> np.ndarray:
        return fad.get_embeddings(load(str(folder)), sr=RATES_HZ[name])

    embed(warm)
    start = time.process_time()
    vectors = embed(audio)
    cpu_s = time.process_time() - start
    # the package takes files as the folder lists them, and joins PANN's vectors end to end
    listed = [entry.name for entry in os.scandir(audio)]
    per_file = vectors.reshape(len(listed), -1, 128 if name == "encodec-24k" else 2048)
    return np.concatenate(per_file[np.argsort(listed)]), cpu_s


def embed_ours(name: str, audio: Path, warm: Path, weights: Path) -> tuple[np.ndarray, float]:
    """Vectors by our loader and encoder, and the seconds they took."""
    os.environ["LORA_BENCH_CHECKPOINTS"] = str(weights)
    from lora_bench.encoders import get_encoder
    from lora_bench.evaluation.audio_folder import open_folder

    encoder = get_encoder(name, device="cpu")
    encoder.embed(open_folder(warm))
    start = time.process_time()
    vectors = encoder.embed(open_folder(audio)).values
    return vectors, time.process_time() - start


def run_side(side: str, name: str, folder: Path, threads: int) -> None:
    """One measurement; the body of the child process."""
    import torch

    torch.set_num_threads(threads)
    if name == "encodec-24k":
        accept_any_checksum(folder / "weights")
    embed = embed_ours if side == "ours" else embed_theirs
    vectors, cpu_s = embed(name, folder / "audio", folder / "warm", folder / "weights")
    np.save(folder / f"{side}.npy", vectors)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"cpu_s": cpu_s, "peak_mib": peak_mib}))


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one encoder, best of `--repeats`, in alternation."""
    rate_hz = args.rate or RATES_HZ[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part, n_clips in (("audio", args.clips), ("warm", 1)):
            (folder / part).mkdir()
            write_clips(folder / part, n_clips, args.seconds, rate_hz)
        save_random_weights(name, folder / "weights")
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(args.repeats):
            for side in SIDES:
                command = [
                    sys.executable,
                    __file__,
                    "--child",
                    side,
                    name,
                    place,
                    "--threads",
                    str(args.threads),
                ]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                runs[side].append(json.loads(output.splitlines()[-1]))
        theirs, ours = (np.load(folder / f"{side}.npy") for side in SIDES)
    difference = (
        float(np.abs(theirs - ours).max() / theirs.std()) if theirs.shape == ours.shape else float("inf")
    )
    if rate_hz == RATES_HZ[name] and difference > MAX_DIFFERENCE:
        raise SystemExit(
            f"{name}: the two sides' vectors differ by {difference:.2g} of their spread; no ratio is shown"
        )
    best = {side: min(run["cpu_s"] for run in runs[side]) for side in SIDES}
    audio_s = args.clips * args.seconds
    return {
        "encoder": name,
        "file_rate_hz": rate_hz,
        "theirs_audio_s_per_s": audio_s / best["theirs"],
        "ours_audio_s_per_s": audio_s / best["ours"],
        "ratio": best["theirs"] / best["ours"],
        "theirs_peak_mib": min(run["peak_mib"] for run in runs["theirs"]),
        "ours_peak_mib": min(run["peak_mib"] for run in runs["ours"]),
        "difference": difference,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=RATES_HZ, default=["pann", "encodec-24k"])
    parser.add_argument("--clips", type=int, default=24, help="number of clips")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a clip")
    parser.add_argument("--rate", type=int, default=32_000, help="rate of the files; 0 is the network's own")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per side; the best counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "ENCODER", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.child:
        side, name, folder = args.child
        run_side(side, name, Path(folder), args.threads)
        return
    rows = [compare(name, args) for name in args.encoders]
    print(f"{platform.machine()}, {args.threads} threads, {args.clips} clips of {args.seconds:g} s")
    print("| encoder | files | theirs x real time | ours | ratio | peak MiB theirs | ours | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['encoder']} | {row['file_rate_hz']} Hz | {row['theirs_audio_s_per_s']:.1f} "
            f"| {row['ours_audio_s_per_s']:.1f} | {row['ratio']:.2f} | {row['theirs_peak_mib']:.0f} "
            f"| {row['ours_peak_mib']:.0f} | {row['difference']:.1e} |"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
