"""The subcommands of ``effkernels``, one file each; `effkernels_cli` declares their arguments and options."""
