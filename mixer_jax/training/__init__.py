"""Config in, trained state out: schedule, optimizer, losses, mixup, the step and the loop around it."""
