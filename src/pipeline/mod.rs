//! What the user wrote: YAML with positions, templates, checks, the engine's definition.

pub mod template;
