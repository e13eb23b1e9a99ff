"""The command line: a thin shell over what Python can do as well."""
