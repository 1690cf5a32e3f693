"""How published checkpoints name and wire each network: one file per network, one `Layout` per source."""
