"""Requests and answers: an object of JSON a line, both ways."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from classifier import Classifier, NotReady
from training import Training


class Refused(ValueError):
    """A request that makes no sense; its message is for the client."""


def answer(line: bytes, classifier: Classifier, training: Training) -> bytes:
    """The answer to a request: its result, or `error`."""
    try:
        result = _result(_request(line), classifier, training)
    except NotReady:
        result = {"error": "not trained yet: ask again in a while"}
    except Refused as error:
        result = {"error": str(error)}
    except OSError as error:
        result = {"error": f"nothing was kept: {error.strerror}"}
    return json.dumps(result).encode() + b"\n"


def _result(request: dict[str, Any], classifier: Classifier, training: Training) -> dict[str, Any]:
    do = request.get("do")
    if do == "classify":
        return classifier.classify(_pixels(request, classifier))
    if do == "correct":
        name = request.get("class")
        if not classifier.accepts(name):
            more = f" or up to {classifier.spare} new" if classifier.spare else ""
            raise Refused(f"class {name!r}, wanted one of {', '.join(classifier.classes)}{more}")
        return {"correction": classifier.correct(name, _pixels(request, classifier))}
    if do == "retrain":
        training.want(classifier.generation, classifier.journal.last, asked=True)
        return {"training": training.running}
    if do == "status":
        return status(classifier, training)
    raise Refused(f"do={do!r}, wanted classify, correct, retrain or status")


def status(classifier: Classifier, training: Training) -> dict[str, Any]:
    """What the service is doing."""
    return {
        "classes": classifier.classes,
        "spare_classes": classifier.spare,
        "shape": classifier.shape,
        "generation": classifier.generation,
        "last_correction": classifier.journal.last,
        "kept": classifier.journal.count,
        "requests": classifier.requests,
        "training": training.running,
        "trainings": training.done,
        "learnt": training.result,
        "error": training.error,
        "resident_bytes": resident_bytes(),
    }


def resident_bytes() -> int:
    """Memory of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise Refused('a line that is no object of JSON, wanted such as {"do": "status"}')
    return request


def _pixels(request: dict[str, Any], classifier: Classifier) -> bytes:
    """Those sent in base64, or those of the image that had an id."""
    if "id" in request:
        pixels = classifier.seen(request["id"]) if isinstance(request["id"], str) else None
        if pixels is None:
            raise Refused(f"id {request['id']!r} is not remembered any more: send the pixels")
        return pixels
    try:
        pixels = base64.b64decode(request.get("pixels", ""), validate=True)
    except (ValueError, TypeError) as error:
        raise Refused("pixels is not base64") from error
    if len(pixels) != classifier.image_bytes:
        shape = "x".join(map(str, classifier.shape))
        raise Refused(f"{len(pixels)} bytes of pixels, wanted {classifier.image_bytes}: uint8 {shape}")
    return pixels
