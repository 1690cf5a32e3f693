"""Networks, their checkpoints, and the wrapper that makes a victim of one."""
