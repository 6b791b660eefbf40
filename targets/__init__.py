"""What a device is and can do, and the schedule rules that make it fast."""
