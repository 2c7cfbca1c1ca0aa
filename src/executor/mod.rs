//! Carries out the engine's commands and never decides.
