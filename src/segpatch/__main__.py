"""`segpatch` and `python -m segpatch`: Ctrl-C while all is still being imported ends in one line too."""

from __future__ import annotations

import sys

from segpatch.errors import STOPPED


def main() -> None:
    """Runs the command line."""
    try:
        from segpatch import cli

        cli.main()
    except KeyboardInterrupt:
        print("\nsegpatch: stopped", file=sys.stderr)
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
