//! The builder's and the site's program.
fn main() {}
