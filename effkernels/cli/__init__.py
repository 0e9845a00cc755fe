"""What the subcommands of ``effkernels`` do, one file each; `effkernels_cli` declares their arguments and options."""
