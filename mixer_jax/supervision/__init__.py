"""What watches over a run: the watchdog, the account of its time, and the sign of life of each host."""
