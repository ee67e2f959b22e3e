"""`python -m open_florence` is the command `open-florence`."""

from open_florence.cli import main

if __name__ == "__main__":
    main()
