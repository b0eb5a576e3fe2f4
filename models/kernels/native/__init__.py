"""Recurrent loops and convolutions in C++, for the CPU.

Built by `python -m str_app.models.kernels.native`, used where the library lies, else not.
"""
