//! OpenNebula's variables (`context.sh`), and those of its relatives StratusLab and Vac, as typed values.
//!
//! The names and their defaults are those of OpenNebula's own guest packages (one-context). An empty variable is as
//! good as none: OpenNebula writes those that a template mentions. What asks for something that this machine does
//! not do is listed by name and never an error; a value that cannot work is one, with its line.

mod cards;
#[cfg(test)]
pub(crate) mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::mjf;
use super::network::{self, Network};
use super::shell::{ShellError, Variable};
use super::site::{Host, Hostname, Site, TimeZone};
use crate::mjf::place::Place;
use crate::network::names;

/// What the variables ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nebula {
    /// `SET_HOSTNAME`, else `HOSTNAME`.
    pub hostname: Option<Hostname>,
    /// `TIMEZONE`.
    pub timezone: Option<TimeZone>,
    /// `ETHn_...`, `DNS`, `SEARCH_DOMAIN`.
    pub network: Option<Network>,
    /// `START_SCRIPT_BASE64`, else `START_SCRIPT`.
    pub start_script: Option<StartScript>,
    /// Keys for root, in the order of the variables' names here.
    pub keys: Vec<Key>,
    /// `MACHINEFEATURES`, `JOBFEATURES`, `JOBOUTPUTS` (HSF-TN-2016-02).
    pub features: Vec<(String, String)>,
    /// Variables that ask for what this machine does not do, by name.
    pub not_done: Vec<String>,
    /// What is strange, but keeps nothing from working.
    pub warnings: Vec<ShellError>,
}

/// The site's script for the time after the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartScript {
    /// The variable that holds it.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
}

/// A key for root, if the image allows any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The variable.
    pub name: String,
    /// What it says.
    pub value: KeyValue,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValue {
    /// Lines of an `authorized_keys`.
    Text(String),
    /// A file with such lines in the root of the CD.
    File(String),
}

/// Variables with the site's script for the time after the network; the first one that is not empty counts.
pub const START_SCRIPT: [&str; 2] = ["START_SCRIPT_BASE64", "START_SCRIPT"];
/// Variables with keys; the last holds the name of a file (HEPiX).
const KEYS: &[&str] = &["SSH_PUBLIC_KEY", "EC2_PUBLIC_KEY", "PUBLIC_KEY"];
const KEY_FILE: &str = "ROOT_PUBKEY";

/// What other guests do and this one does not: names, and beginnings of names where they end in `_`.
const NOT_DONE: &[&str] = &[
    "CRYPTED_PASSWORD",
    "CRYPTED_PASSWORD_BASE64",
    "DNS_HOSTNAME",
    "EC2_HOSTNAME",
    "EC2_USER_DATA",
    "GRANT_SUDO",
    "GROW_",
    "INIT_SCRIPTS",
    "NETCFG_",
    "ONEGATE_",
    "PASSWORD",
    "PASSWORD_BASE64",
    "READY_SCRIPT",
    "READY_SCRIPT_PATH",
    "REPORT_READY",
    "SECURETTY",
    "SWAP",
    "USERDATA",
    "USERNAME",
    "USERNAME_",
    "USER_DATA",
    "VROUTER_",
];

/// Reads all of them; others are the site's own. `variables` are those that [`super::shell::usable`] leaves.
///
/// # Errors
/// The first value that cannot work.
pub fn read(variables: &[Variable]) -> Result<Nebula, ShellError> {
    let context = Context(variables);
    let mut nebula = Nebula {
        timezone: context.read("TIMEZONE", |text| TimeZone::try_from(text.to_owned()))?,
        start_script: start_script(&context)?,
        ..Nebula::default()
    };
    nebula.hostname = hostname(&context, &mut nebula.warnings)?;
    nebula.network = network(&context, &mut nebula)?;
    nebula.keys = keys(&context)?;
    for name in mjf::VARIABLES {
        let Some(variable) = context.get(name) else { continue };
        match Place::try_from(variable.value.clone()) {
            Ok(place) => nebula.features.push((name.to_owned(), place.to_string())),
            Err(why) => nebula.warnings.push(ShellError::of(variable, format!("{why}; it is not used"))),
        }
    }
    nebula.not_done.extend(variables.iter().filter(|variable| asks(variable)).map(|variable| variable.name.clone()));
    nebula.not_done.sort();
    Ok(nebula)
}

impl Nebula {
    /// Fills in what `context.json` leaves open, as that counts more.
    pub fn complete(&self, site: &mut Site) {
        site.hostname = site.hostname.take().or(self.hostname.clone());
        site.timezone = site.timezone.take().or(self.timezone.clone());
        site.network = site.network.take().or(self.network.clone());
        site.mjf.complete(&self.features);
    }
}

/// Whether a variable wants what nobody does here.
fn asks(variable: &Variable) -> bool {
    let name = variable.name.as_str();
    let pass_through = name.strip_prefix("PCI").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let virtiofs = name.starts_with("DISK") && (name.ends_with("_MOUNT_TAG") || name.ends_with("_MOUNT_POINT"));
    let listed = |each: &&str| name == *each || each.ends_with('_') && name.starts_with(*each);
    let known = pass_through || virtiofs || NOT_DONE.iter().any(listed);
    known && !variable.value.trim().is_empty() && !is_no(&variable.value)
}

fn is_yes(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("yes")
}

fn is_no(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("no")
}

/// The variables by name.
#[derive(Clone, Copy)]
struct Context<'a>(&'a [Variable]);

impl<'a> Context<'a> {
    /// One that is set and not empty.
    fn get(&self, name: &str) -> Option<&'a Variable> {
        self.0.iter().rfind(|each| each.name == name).filter(|each| !each.value.trim().is_empty())
    }

    /// The first of several names for the same.
    fn first(&self, names: &[String]) -> Option<&'a Variable> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Its value, if it is set.
    fn read<T>(&self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ShellError> {
        self.get(name).map(|variable| value(variable, read)).transpose()
    }

    /// Each of its words.
    fn words<T>(&self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ShellError> {
        let Some(variable) = self.get(name) else { return Ok(Vec::new()) };
        // Blanks in OpenNebula's own templates; commas in many others.
        let words = variable.value.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty());
        words.map(|word| read(word).map_err(|why| ShellError::of(variable, why))).collect()
    }
}

/// A variable's value, read; the error names the variable and its line.
fn value<T>(variable: &Variable, read: impl Fn(&str) -> Result<T, String>) -> Result<T, ShellError> {
    read(variable.value.trim()).map_err(|why| ShellError::of(variable, why))
}

/// Users name machines as they like, and OpenNebula hands that on: what no name may hold becomes `-`, as there.
fn hostname(context: &Context<'_>, warnings: &mut Vec<ShellError>) -> Result<Option<Hostname>, ShellError> {
    let names = ["SET_HOSTNAME", "HOSTNAME"].map(str::to_owned);
    let Some(variable) = context.first(&names) else { return Ok(None) };
    let given = variable.value.trim();
    if let Some(name) = names::hostname(given) {
        return Ok(Some(name));
    }
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let made: String = given.chars().map(fits).collect();
    let name = names::hostname(made.trim_matches('-'));
    let name = name.ok_or_else(|| ShellError::of(variable, format!("{given:?} is not a host name")))?;
    warnings.push(ShellError::of(variable, format!("{given:?} is not a host name; the machine is called {name}")));
    Ok(Some(name))
}

/// The interfaces; without any, the DNS servers of the machine alone.
fn network(context: &Context<'_>, nebula: &mut Nebula) -> Result<Option<Network>, ShellError> {
    let host = |text: &str| Host::try_from(text.to_owned());
    let address = |text: &str| network::ip(text).and_then(network::host);
    let dns = context.words("DNS", address)?;
    let search = context.words("SEARCH_DOMAIN", host)?;
    let interfaces = match context.get("NETWORK") {
        // Said by hand: OpenNebula itself then writes none of the variables.
        Some(variable) if is_no(&variable.value) => Vec::new(),
        _ => cards::read(context, nebula)?,
    };
    let network = Network { interfaces, dns, search };
    if network == Network::default() {
        return Ok(None);
    }
    cards::check(context, &network)?;
    Ok(Some(network))
}

fn start_script(context: &Context<'_>) -> Result<Option<StartScript>, ShellError> {
    let [base64, plain] = START_SCRIPT;
    if let Some(variable) = context.get(base64) {
        // Encoders break lines.
        let text: Vec<u8> = variable.value.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let text = STANDARD.decode(text).map_err(|error| ShellError::of(variable, format!("not base64: {error}")))?;
        return Ok(Some(StartScript { name: variable.name.clone(), text }));
    }
    Ok(context
        .get(plain)
        .map(|variable| StartScript { name: variable.name.clone(), text: variable.value.clone().into_bytes() }))
}

fn keys(context: &Context<'_>) -> Result<Vec<Key>, ShellError> {
    let text = |name: &&str| {
        let variable = context.get(name)?;
        Some(Key { name: variable.name.clone(), value: KeyValue::Text(variable.value.clone()) })
    };
    let mut keys: Vec<Key> = KEYS.iter().filter_map(text).collect();
    let file = context.read(KEY_FILE, |file| {
        let plain = !file.contains(['/', '\0']) && !matches!(file, "." | "..");
        plain.then(|| file.to_owned()).ok_or_else(|| format!("{file:?} is not the name of a file in the CD's root"))
    })?;
    keys.extend(file.map(|file| Key { name: KEY_FILE.to_owned(), value: KeyValue::File(file) }));
    Ok(keys)
}
