#!/bin/sh
# Makes the sample speech of this folder, alice.wav and bob.wav: 48 kHz, mono, 16 bits.
#
# The sentences are ours and the voices are espeak-ng's, so that the recordings are free to use. Each file begins with
# 0.3 s of silence, peaks at -6 dBFS, and has the pauses of somebody who waits for an answer.
# Needs: espeak-ng, sox.
set -eu
cd "$(dirname "$0")"
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT

# say NUMBER PAUSE_S SENTENCE...: one sentence in $voice, with silence after it.
say() {
    number=$1 pause_s=$2
    shift 2
    espeak-ng -v "$voice" -s "$words_per_minute" -p "$pitch" -w "$parts/$name-$number-raw.wav" "$*"
    # espeak-ng speaks at 22.05 kHz and leaves silence of its own around each sentence.
    sox "$parts/$name-$number-raw.wav" -r 48000 -c 1 -b 24 "$parts/$name-$number.wav" \
        silence 1 0.01 0.1% reverse silence 1 0.01 0.1% reverse pad 0 "$pause_s"
}

# join: all sentences of $name, in order, as its file. Without dither, so that silence is silent.
join() {
    sox -D "$parts/$name"-[0-9].wav -r 48000 -c 1 -b 16 "$name.wav" pad 0.3 0 norm -6
}

name=alice voice=en-us+f3 words_per_minute=170 pitch=55
say 1 0.8 "Ahoy! Can you hear me?"
say 2 0.7 "I am calling from the harbour, and the wind is rising."
say 3 0.6 "The ferry leaves at a quarter past nine, so bring a warm coat."
say 4 0.4 "Shall we meet under the big clock?"
join

name=bob voice=en-us+m6 words_per_minute=165 pitch=80
say 1 0.7 "Ahoy, yes! You sound very close."
say 2 0.8 "Under the clock is fine. I will be there before nine."
say 3 0.6 "My brother is lending us his small boat."
say 4 0.4 "Please call me again if anything changes."
join
