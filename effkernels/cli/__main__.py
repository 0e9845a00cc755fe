"""``python -m effkernels.cli``: the same as the console script."""

from __future__ import annotations

from effkernels_cli import main

if __name__ == "__main__":
    main()
