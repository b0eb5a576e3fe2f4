"""The recurrent layers' loops in C++, for the CPU: built by `python -m models.native`, used where it lies, else not."""
