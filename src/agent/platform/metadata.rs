//! The places of features and outputs as a cloud's metadata server names them.
//!
//! HSF-TN-2016-02 has three keys for it, read once in the life of a machine: in the `meta` object of OpenStack, or as
//! metadata of the EC2 kind. What the context has said is not asked for.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Request;

use super::reader::Config;
use super::shelf::{self, Fetched, Trust};
use crate::mjf::place::Place;
use crate::work::http::Client;

const SERVER: &str = "http://169.254.169.254";
const OPENSTACK: &str = "/openstack/latest/meta_data.json";
const EC2: &str = "/latest/meta-data/";
/// It is the host itself; where there is none, nothing answers at all.
const CALL: Duration = Duration::from_secs(5);
/// A machine's metadata holds its users' keys and what they wrote into it.
const LONGEST: u64 = 256 * 1024;

#[derive(Debug, Default, Deserialize)]
struct Openstack {
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Meta {
    machinefeatures: Option<String>,
    jobfeatures: Option<String>,
    joboutputs: Option<String>,
}

/// Fills in the places that are not known, and returns that of the outputs if it is new.
///
/// # Errors
/// Nobody answers; names the server.
pub fn ask(config: &mut Config) -> Result<Option<Place>, String> {
    let client = shelf::client(SERVER, &Trust::default()).map_err(|error| error.to_string())?;
    let meta = match openstack(&client)? {
        Some(meta) => meta,
        None => ec2(&client)?,
    };
    let place = |text: Option<String>| {
        let place = Place::try_from(text?);
        place.inspect_err(|why| log::warn!("features: metadata: {why}")).ok()
    };
    let Meta { machinefeatures, jobfeatures, joboutputs } = meta;
    config.machine = config.machine.take().or_else(|| place(machinefeatures));
    config.job = config.job.take().or_else(|| place(jobfeatures));
    Ok(place(joboutputs).filter(|_| !config.has_outputs))
}

fn openstack(client: &Client) -> Result<Option<Meta>, String> {
    let url = format!("{SERVER}{OPENSTACK}");
    let failed = |why: &dyn std::fmt::Display| format!("GET {url}: {why}");
    let request = Request::get(&url).body(None).map_err(|error| failed(&error))?;
    let answer = client.call(request, CALL).map_err(|error| failed(&error))?;
    match answer.status().as_u16() {
        200..=299 => {}
        404 => return Ok(None),
        code => return Err(failed(&code)),
    }
    let mut text = Vec::new();
    let body = answer.into_body().into_reader().take(LONGEST).read_to_end(&mut text);
    body.map_err(|error| failed(&error))?;
    parse(&text).map(Some).map_err(|error| failed(&error))
}

fn parse(text: &[u8]) -> Result<Meta, serde_json::Error> {
    serde_json::from_slice::<Openstack>(text).map(|openstack| openstack.meta)
}

fn ec2(client: &Client) -> Result<Meta, String> {
    let read = |key: &str| match shelf::get(client, &format!("{SERVER}{EC2}{key}"), CALL) {
        Fetched::Content(content) => Ok(Some(String::from_utf8_lossy(&content).trim().to_owned())),
        Fetched::Nothing => Ok(None),
        Fetched::Failed(why) => Err(why),
    };
    Ok(Meta {
        machinefeatures: read("machinefeatures")?,
        jobfeatures: read("jobfeatures")?,
        joboutputs: read("joboutputs")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openstack_has_them_among_what_users_wrote() {
        let text = br#"{"uuid": "x", "meta": {"machinefeatures": "http://h/mf", "machinetype": "prod", "n": "1"}}"#;
        let meta = Meta { machinefeatures: Some("http://h/mf".to_owned()), ..Meta::default() };
        assert_eq!(parse(text).unwrap(), meta);
        assert_eq!(parse(br#"{"uuid": "x"}"#).unwrap(), Meta::default());
        assert!(parse(b"<html>").is_err());
        assert!(parse(br#"{"meta": {"machinefeatures": 5}}"#).is_err());
    }
}
