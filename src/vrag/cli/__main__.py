"""`python -m vrag.cli`, where the script `vrag` is not on the path."""

from __future__ import annotations

import sys

from vrag.cli import main

sys.exit(main())
