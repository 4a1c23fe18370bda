"""`python -m focalis` is the command `focalis`."""

from focalis.cli.main import main

if __name__ == "__main__":
    main()
