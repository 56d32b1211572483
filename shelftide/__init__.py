"""The door: public names and the command line. No logic lives here."""
