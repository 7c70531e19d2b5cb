"""The version of the package, known without asking the installation."""

VERSION = "0.2.0"
