"""`python -m dip.cli`, the same as `dip`."""

from dip.cli import main

if __name__ == "__main__":
    main()
