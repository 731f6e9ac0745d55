//! What OpenNebula's variables ask of the machine, by the guest's own translation, which stops at the first value that
//! cannot work; here it goes on behind it.

use super::super::finding::Finding;
use super::super::finding::Level::{Error, Warning};
use super::super::tree::Tree;
use super::settings::{MAX_ERRORS, about_line};
use crate::agent::nebula::key_file;
use crate::context::opennebula::{self, KeyValue, Nebula};
use crate::context::shell::{ShellError, Variable};
use crate::image::policy::Policy;

/// Reads them; what the guest refuses, warns of or does nothing about becomes a finding.
pub fn check(tree: &Tree, policy: &Policy, variables: &[Variable], findings: &mut Vec<Finding>) -> Nebula {
    let nebula = read(variables, findings);
    findings.extend(nebula.warnings.iter().map(|warning| about_line(Warning, warning)));
    let of = |name: &str| variables.iter().find(|variable| variable.name == name).cloned().unwrap_or_default();
    let about = |level, name: &str, why: &str| about_line(level, &ShellError::of(&of(name), why));
    findings.extend(nebula.not_done.iter().map(|name| about(Warning, name, "ctxinit does nothing about it")));
    for key in &nebula.keys {
        if !policy.accounts.root_ssh_keys {
            let why = "the image does not allow keys for root (accounts.root_ssh_keys)";
            findings.push(about(Warning, &key.name, why));
        } else if let KeyValue::File(file) = &key.value
            && let Err(error) = key_file(&tree.root().join(file))
        {
            findings.push(about(Error, &key.name, &format!("{file}: {error}")));
        }
    }
    nebula
}

fn read(variables: &[Variable], findings: &mut Vec<Finding>) -> Nebula {
    let mut left = variables.to_vec();
    for _ in 0..MAX_ERRORS {
        let error = match opennebula::read(&left) {
            Ok(nebula) => return nebula,
            Err(error) => error,
        };
        let finding = about_line(Error, &error);
        let (before, faulty) = (left.len(), finding.key.clone());
        findings.push(finding);
        // A card without one of its values would only be told to lack that.
        let card = card(&faulty);
        left.retain(|variable| variable.name != faulty && (card.is_none() || self::card(&variable.name) != card));
        if left.len() == before {
            break;
        }
    }
    Nebula::default()
}

/// `ETH0` of `ETH0_IP`.
fn card(name: &str) -> Option<&str> {
    let (card, _) = name.split_once('_')?;
    card.strip_prefix("ETH").filter(|number| number.parse::<u32>().is_ok()).map(|_| card)
}
