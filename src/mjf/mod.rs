//! Machine/Job Features (HSF-TN-2016-02): what a site tells a machine about itself and its time, and what a machine
//! tells its jobs. Pure: who reads and writes is `agent::platform`.

pub mod deadline;
pub mod given;
pub mod keys;
pub mod place;
