//! The logger: collects the machine's log from the first moment on and forwards it to the site.

pub mod backoff;
pub mod parse;
pub mod queue;
pub mod record;
pub mod window;
