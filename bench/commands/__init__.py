"""One module per command or family of commands; ``bench.cli`` puts them together."""
