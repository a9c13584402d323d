"""The commands of the command line, one function each; its signature is its options, its docstring its help."""
