//! Machines that boot together, all of them real workers, against one real token server.
//!
//! examples/herd does the same with a thousand, and measures.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../examples/herd/machines.rs"]
mod machines;

use std::time::Duration;

use machines::{Plan, run};

fn plan(late: u64) -> Plan {
    Plan {
        ctxtool: env!("CARGO_BIN_EXE_ctxtool").into(),
        machines: 200,
        tasks: 3,
        late: Duration::from_secs(late),
        task: Duration::from_millis(10),
    }
}

#[test]
fn all_are_served_and_no_token_comes_twice() {
    let figures = run(&plan(0)).unwrap();
    assert!(figures.right(), "{figures}");
    assert_eq!((figures.completed, figures.duplicates, figures.results, figures.empty), (600, 0, 600, 0), "{figures}");
}

#[test]
fn a_late_server_is_found_by_all() {
    let figures = run(&plan(5)).unwrap();
    assert!(figures.right(), "{figures}");
    assert!(figures.faults >= 200, "nobody met the silence: {figures}");
}
