"""What `import vrag` costs beside a bare interpreter and beside the SDKs that it does not load.

    python benchmarks/import_time.py

Each line is the median of interleaved fresh processes; times are above the bare interpreter's.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "bare interpreter": "pass",
    "import vrag": "import vrag",
    "from vrag import Brief": "from vrag import Brief",
    "from vrag import VRAGPipeline": "from vrag import VRAGPipeline",
    "import boto3 (peer)": "import boto3",
    "import numpy (peer)": "import numpy",
}
ROUNDS = 15
HEAVY = ("boto3", "opensearchpy", "av", "cv2", "numpy", "PIL")


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            taken[name].append(seconds(statement))
    bare = statistics.median(taken["bare interpreter"])
    ours = statistics.median(taken["import vrag"]) - bare
    print(f"{'':32} {'above bare, s':>14} {'of import vrag':>15}")
    for name, times in taken.items():
        above = statistics.median(times) - bare
        print(f"{name:32} {above:14.4f} {above / ours:14.1f}x")
    code = f"import sys, vrag; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    print(f"of {', '.join(HEAVY)}, `import vrag` loads: {loaded or 'none'}")
    print(f"goal, at most 0.05 s: {'met' if ours <= 0.05 else 'missed'} ({ours:.4f} s)")


if __name__ == "__main__":
    main()
