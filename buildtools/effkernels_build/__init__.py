"""How the compiled modules are built. Used by setup.py and by tests/build, never installed.

`toolchain` finds the tools, `cuda` decides whether and how to build for CUDA, `modules` lists the
sources and flags of each module, `ninja_build` compiles and links, `builder` runs all of it and
keeps a `record`, `command` is the setuptools command. All but `command` need only the standard
library.
"""
