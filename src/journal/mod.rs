//! The durable log of runs: the only truth about a run.
