"""The command line. `main` imports click only when it runs, so that `import vrag.cli` needs no extra."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `vrag` with these arguments (None: those of the process) and return its exit code."""
    try:
        from vrag.cli.app import run  # noqa: PLC0415  # the extra `cli`
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.stderr.write("error: The command line needs the extra 'cli'.\nnext: pip install 'vrag[cli]'\n")
        return 2
    return run(sys.argv[1:] if arguments is None else list(arguments))


if __name__ == "__main__":
    sys.exit(main())
