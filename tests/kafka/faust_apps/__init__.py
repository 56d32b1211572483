"""Small Faust apps that tests run as processes, since a crash or a kill belongs to a process."""
