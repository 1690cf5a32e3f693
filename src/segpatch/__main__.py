"""`python -m segpatch`."""

from segpatch.cli import main

if __name__ == "__main__":
    main()
