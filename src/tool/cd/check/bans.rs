//! `ban.list`, by the guest's own reader.

use super::super::CdError;
use super::super::finding::Finding;
use super::super::finding::Level::{Error, Warning};
use super::super::tree::Tree;
use crate::ban::{FILE, parse};

/// What somebody may have called it, and what a volume without long names makes of it.
const MISNAMED: [&str; 9] =
    ["Ban.list", "BAN.LIST", "ban.lis", "ban.lst", "ban.list.txt", "bans.list", "banlist", "ban-list", "ban_list"];

/// A list that the guest cannot read stops everybody's work; one that it does not see stops nobody's.
///
/// # Errors
/// If the file cannot be read.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) -> Result<(), CdError> {
    if let Some(text) = tree.read(FILE)? {
        if let Err(error) = parse::parse(FILE, &text) {
            let line = error.line();
            let place = if line == 0 { format!("{FILE}: ") } else { format!("{FILE}:{line}: ") };
            let what = error.to_string();
            findings.push(Finding::new(Error, FILE, what.strip_prefix(&place).unwrap_or(&what)).at(line as usize));
        }
        return Ok(());
    }
    let misnamed = MISNAMED.iter().filter(|name| tree.has_file(name));
    findings
        .extend(misnamed.map(|&name| Finding::new(Warning, name, format!("passed over: bans are read from {FILE}"))));
    Ok(())
}
