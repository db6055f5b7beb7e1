"""Config in, trained state out: schedule, optimiser, losses, mixup, the step and the loop around it."""
