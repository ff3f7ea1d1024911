#!/usr/bin/env python3
"""Scores that only Python has: PLCMOS, AECMOS and STOI.

    score.py TASKS.json SCORES.json

TASKS is a list of {"id", "kind": "plcmos", "degraded"}, {"id", "kind": "stoi", "reference", "degraded"} or {"id", "kind": "aecmos", "far", "near",
"out", "talk"}; files are WAV of 16 kHz, mono. SCORES is an object of what each id got. Chance, which PLCMOS draws its raters with, is seeded.
"""
import json
import sys
import wave

import numpy as np

RATE = 16_000
# Raters that PLCMOS imagines; the standard deviation of the mean is 0.02 with 5.
RATERS = 5


def read(path):
    with wave.open(path) as reader:
        assert reader.getframerate() == RATE and reader.getnchannels() == 1, path
        return np.frombuffer(reader.readframes(reader.getnframes()), np.int16).astype(np.float32) / 32_768


def main():
    tasks = json.load(open(sys.argv[1]))
    kinds = {task["kind"] for task in tasks}
    if "plcmos" in kinds:
        from speechmos.plcmos import PLCMOS

        plcmos = PLCMOS(embed_rounds=RATERS)
    if "aecmos" in kinds:
        from speechmos.aecmos import AECMOS

        aecmos = AECMOS("aecmos_16kHz")
    scores = {}
    for task in tasks:
        np.random.seed(1)
        if task["kind"] == "plcmos":
            scores[task["id"]] = plcmos(read(task["degraded"]))["plcmos"]
        elif task["kind"] == "stoi":
            from pystoi import stoi

            reference, degraded = read(task["reference"]), read(task["degraded"])
            length = min(len(reference), len(degraded))
            scores[task["id"]] = float(stoi(reference[:length], degraded[:length], RATE))
        else:
            sample = {"lpb": read(task["far"]), "mic": read(task["near"]), "enh": read(task["out"])}
            scores[task["id"]] = aecmos(sample, task["talk"])["echo_mos"]
    json.dump(scores, open(sys.argv[2], "w"))


main()
