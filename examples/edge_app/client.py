"""Talks to the service: `python client.py SOCKET COMMAND ...`.

status                          what it is doing
classify PICTURE...             .pgm, .ppm or .npy
correct CLASS PICTURE...        what they show
retrain                         now, rather than when enough corrections are there
camera                          frames of exactly the student's size from standard input, such as of
    ffmpeg -f v4l2 -i /dev/video0 -vf fps=2,scale=32:32 -pix_fmt rgb24 -f rawvideo - | python client.py SOCKET camera
"""

import base64
import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pictures import PictureError, read_picture


class Client:
    """One connection; `ask` waits for each answer."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises ConnectionError when the service is gone."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the service closed the connection")
        found: dict[str, Any] = json.loads(line)
        return found

    def classify(self, image: np.ndarray) -> dict[str, Any]:
        """Of uint8 (C, H, W): id, class, probability and the generation of the weights."""
        return self.ask(do="classify", pixels=encoded(image))

    def correct(self, image: np.ndarray, name: str) -> dict[str, Any]:
        """Say what an image shows; the number in the answer means that it is on the disk."""
        return self.ask(do="correct", pixels=encoded(image), **{"class": name})


def encoded(image: np.ndarray) -> str:
    """Pixels as requests hold them."""
    return base64.b64encode(image.tobytes()).decode()


def main(path: str, command: str, *words: str) -> None:
    """Print an answer a line."""
    client = Client(path)
    shape = tuple(client.ask(do="status")["shape"])
    if command == "classify":
        for word in words:
            print(json.dumps(client.classify(read_picture(Path(word), shape))))
    elif command == "correct":
        for word in words[1:]:
            print(json.dumps(client.correct(read_picture(Path(word), shape), words[0])))
    elif command == "camera":
        channels, height, width = shape
        while len(frame := sys.stdin.buffer.read(channels * height * width)) == channels * height * width:
            pixels = np.frombuffer(frame, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
            print(json.dumps(client.classify(pixels)), flush=True)
    else:
        print(json.dumps(client.ask(do=command), indent=2))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, PictureError) as error:
        sys.exit(f"client: {error}")
