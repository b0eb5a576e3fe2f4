"""Fast paths of the recurrent layers and the convolutions: C++ on a CPU, Triton on a GPU.

They take tensors and integer codes and know nothing of the layers that call them. `python -m str_app.models.kernels`
compiles the C++ functions; without them, and without Triton, callers use torch's operations.
"""
