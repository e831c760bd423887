"""`python -m ambassador`: the same as the console script."""

from ambassador.cli.main import main

if __name__ == "__main__":
    main()
