"""`python -m tsugiki` is `tsugiki`."""

from tsugiki.cli import main

if __name__ == "__main__":
    main()
