"""Recurrent loops and convolutions in C++, for the CPU.

Built by `python -m models.native`, used where the library lies, else not.
"""
