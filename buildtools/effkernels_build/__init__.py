"""How the compiled modules are built. Used by setup.py and by tests/build, never installed.

`toolchain` finds the tools, `cuda` decides about CUDA, `modules` says what each module consists
of, `ninja_build` compiles and links, `builder` does it all and keeps a `record`, `command` is the
setuptools command. All but `command` need only the standard library.
"""
