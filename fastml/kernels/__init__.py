"""Compiled loops: out-parameters, in place, no checks, no policy."""
