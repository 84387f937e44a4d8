"""What `edgedd demo` reaches, kept: python benchmarks/demo.py"""

import json
import tempfile
from pathlib import Path

from surroundings import surroundings

import edgedd


def main() -> None:
    """Run the demo, write benchmarks/results/demo.json."""
    with tempfile.TemporaryDirectory() as folder:
        result = edgedd.demo(folder)
    kept = {key: result[key] for key in ("rows", "student", "seconds")}
    path = Path(__file__).parent / "results" / "demo.json"
    path.write_text(json.dumps({**kept, "command": "python benchmarks/demo.py", **surroundings()}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
