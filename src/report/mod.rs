//! Shows: listens to events and reads journals.
