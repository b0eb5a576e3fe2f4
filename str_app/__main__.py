"""`python -m str_app` is the command `str-app`."""

from str_app.cli import main

main()
