//! The context: what the site tells the machine on its CD.

pub mod site;
