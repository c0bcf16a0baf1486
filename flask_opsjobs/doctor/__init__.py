"""Holds the doctor: checks of the configuration, the servers, the processes and the data, a file a group."""
