"""`python -m sparsebert` is `sparsebert`."""

from sparsebert.cli import main

main()
