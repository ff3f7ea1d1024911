#!/usr/bin/env python3
"""Makes the speech that the calls of the voice bench carry: speech/NAME.wav (48 kHz, to be played), speech/NAME-16k.wav (the same, to be compared
with), and speech/index.json, which says where each utterance lies. Two voices: a man, who reads for LibriVox (the test data in the source package of
pocketsphinx, public domain), and a woman, who speaks the prompts of Asterisk (Debian's asterisk-core-sounds-en-g722).

    prepare.py FOLDER

Each file begins with seconds that are not judged, in which a call settles, and after silences come the utterances that are.
"""
import json
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import G722
import numpy as np
from scipy.signal import resample_poly

RATE = 16_000
LEAD_SECONDS = 6.0
PAUSE_SECONDS = 0.5
# What telephony calls the nominal level of active speech, in dBFS (ITU-T P.56, P.830).
LEVEL_DBFS = -26.0
POCKETSPHINX = "pocketsphinx==5.1.1"
LIBRIVOX = "test/data/librivox/sense_and_sensibility_01_austen_64kb-"
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
# Prompts of whole sentences, long enough to be cut into utterances; the first gives the seconds that are not judged.
PROMPT_NAMES = ["demo-abouttotry", "demo-congrats"]
# A pause in a prompt at which it may be cut.
CUT_PAUSE_SECONDS = 0.25
UTTERANCE_SECONDS_MIN = 4.0


def male(folder):
    """The utterances of the reader, in their order."""
    archive = next(folder.glob("pocketsphinx-*.tar.gz"), None)
    if archive is None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder), POCKETSPHINX]
        subprocess.run(command, check=True)
        archive = next(folder.glob("pocketsphinx-*.tar.gz"))
    utterances = []
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if LIBRIVOX in member.name and member.name.endswith(".wav")]
        for member in sorted(members, key=lambda member: member.name):
            with wave.open(tar.extractfile(member)) as reader:
                assert reader.getframerate() == RATE and reader.getnchannels() == 1, member.name
                utterances.append(np.frombuffer(reader.readframes(reader.getnframes()), np.int16) / 32_768)
    return utterances[0], utterances


def female():
    """A prompt to begin with, and another one cut into utterances at its pauses."""
    lead, text = (np.array(G722.G722(RATE, 64_000).decode((PROMPTS / f"{name}.g722").read_bytes())) / 32_768 for name in PROMPT_NAMES)
    return lead, cut(text)


def cut(speech):
    frame = RATE // 100
    levels = np.sqrt(np.mean(speech[: len(speech) // frame * frame].reshape(-1, frame) ** 2, axis=1))
    is_quiet = levels < 0.03 * np.percentile(levels, 95)
    utterances, start, quiet = [], 0, 0
    for index, silent in enumerate(is_quiet):
        quiet = quiet + 1 if silent else 0
        middle = (index - quiet // 2) * frame
        if quiet * frame >= CUT_PAUSE_SECONDS * RATE and middle - start >= UTTERANCE_SECONDS_MIN * RATE:
            utterances.append(speech[start:middle])
            start, quiet = middle, 0
    if len(speech) - start >= UTTERANCE_SECONDS_MIN * RATE:
        utterances.append(speech[start:])
    return utterances


def levelled(speech):
    """Brings the active parts to the nominal level, and no sample beyond full scale."""
    frame = RATE // 50
    power = np.mean(speech[: len(speech) // frame * frame].reshape(-1, frame) ** 2, axis=1)
    active = np.mean(power[power > power.max() * 10**-4])
    return np.clip(speech * 10 ** (LEVEL_DBFS / 20) / np.sqrt(active), -0.99, 0.99)


def write(path, samples, rate):
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((np.clip(samples, -1, 1) * 32_767).round().astype("<i2").tobytes())


def assemble(folder, name, lead, utterances):
    pause = np.zeros(int(PAUSE_SECONDS * RATE))
    length = int(LEAD_SECONDS * RATE)
    parts = [np.resize(levelled(lead), length), pause]
    spans, at = [], length + len(pause)
    for utterance in utterances:
        spans.append([at / RATE, (at + len(utterance)) / RATE])
        parts += [levelled(utterance), pause]
        at += len(utterance) + len(pause)
    speech = np.concatenate(parts)
    write(folder / f"{name}-16k.wav", speech, RATE)
    write(folder / f"{name}.wav", resample_poly(speech, 3, 1), 3 * RATE)
    return {"name": name, "seconds": len(speech) / RATE, "lead_seconds": LEAD_SECONDS, "utterances": spans}


def main():
    folder = Path(sys.argv[1])
    speech = folder / "speech"
    speech.mkdir(parents=True, exist_ok=True)
    if (speech / "index.json").exists():
        return
    voices = [assemble(speech, "male", *male(folder)), assemble(speech, "female", *female())]
    (speech / "index.json").write_text(json.dumps(voices, indent=1))


main()
