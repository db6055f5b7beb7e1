"""What watches over a run: the watchdog, the account of its time, the sign of life of each host, and the supervisor."""
