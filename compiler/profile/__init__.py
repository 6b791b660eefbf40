"""Where the time of a call goes, kernel by kernel, each against the machine's limit."""
