"""The paper's tables and figures as data, and what stands in each of their cells today: the paper's figure, ours, the cost."""
