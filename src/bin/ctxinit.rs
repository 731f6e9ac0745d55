//! The guest's program.
fn main() {}
