"""Pack pocketsphinx's test utterances into ``models/weights/speech.safetensors``.

Run it as ``python -m burnish.models.pack_speech FOLDER``, where FOLDER holds the unpacked Debian
package ``pocketsphinx-testdata`` (``apt-get download``, then ``dpkg-deb -x``; no root needed).
"""

from __future__ import annotations

import json
import re
import sys
import wave
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from burnish.models.speech import PACK, RATE

LINE = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((.*)\)")


def main() -> None:
    data = Path(sys.argv[1]) / "usr/share/pocketsphinx/test/data"
    recorded, transcripts = {}, {}
    for folder, listing, prefix in (
        ("librivox", "transcription", "sense"),
        ("cards", "cards.transcription", "cards"),
    ):
        for text, name in LINE.findall((data / folder / listing).read_text()):
            key = f"{prefix}-{name.rsplit('-', 1)[-1]}"
            with wave.open(str(data / folder / f"{name}.wav")) as opened:
                form = (opened.getframerate(), opened.getnchannels(), opened.getsampwidth())
                if form != (RATE, 1, 2):
                    raise ValueError(f"{name}.wav is {form}, expected ({RATE}, 1, 2)")
                recorded[key] = np.frombuffer(opened.readframes(opened.getnframes()), np.int16)
            transcripts[key] = text
    save_file(recorded, PACK, metadata={"transcripts": json.dumps(transcripts)})


if __name__ == "__main__":
    main()
