"""The torch engine of an OpenLedger GPU worker: one base model in a child process, spoken to over stdio."""

__version__ = "0.1.0"
