//! One of the site's three places as a role uses it: files that are read, and files that are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use thiserror::Error;
use ureq::http::{Request, header};

use crate::mjf::keys::LONGEST;
use crate::mjf::place::Place;
use crate::work::http::{Client, SetupError};
use crate::work::login::{self, Login};

/// Two lost SYNs are repeated after 1 and 3 s. The server is the host itself or a neighbour of it.
const CONNECT: Duration = Duration::from_secs(10);

/// Files of the CD for https, PEM.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The only authorities that a server is believed by.
    pub ca: Option<Vec<u8>>,
    /// The machine's own certificate, and its key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

/// A place, and what it is reached by.
#[derive(Debug)]
pub struct Shelf {
    place: Place,
    client: Option<Client>,
}

/// A file that was not written.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct PutError {
    /// Names file and fault.
    pub why: String,
    /// Whether the site does not want it, so that another try is of no use.
    pub refused: bool,
}

/// What came of reading a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Its first [`LONGEST`] bytes.
    Content(Vec<u8>),
    /// The place is there, and the file is not.
    Nothing,
    /// The place is away or talks nonsense; names the file.
    Failed(String),
}

impl Shelf {
    /// Makes no call yet.
    ///
    /// # Errors
    /// When URL and authorities do not fit together.
    pub fn new(place: Place, trust: &Trust) -> Result<Self, SetupError> {
        let client = match &place {
            Place::Directory(_) => None,
            Place::Url(url) => Some(client(url, trust)?),
        };
        Ok(Self { place, client })
    }

    /// Reads a file.
    pub fn get(&self, name: &str, limit: Duration) -> Fetched {
        let path = self.place.file(name);
        let Some(client) = &self.client else { return read(&self.place, &path) };
        get(client, &path, limit)
    }

    /// Writes a file, whole or not at all where the place is a directory.
    ///
    /// # Errors
    /// The text names file and fault.
    pub fn put(&self, name: &str, content: &[u8], limit: Duration) -> Result<(), PutError> {
        let path = self.place.file(name);
        let Some(client) = &self.client else {
            return write(&path, content).map_err(|error| failed(format!("{path}: {error}")));
        };
        // ureq gives a slice its Content-Length, which Vac's server wants.
        let request = Request::put(&path).header(header::CONTENT_TYPE, "text/plain").body(Some(content));
        let request = request.map_err(|error| failed(format!("PUT {path}: {error}")))?;
        let answer = client.call(request, limit).map_err(|error| failed(format!("PUT {path}: {error}")))?;
        let refused = |what: &str| Err(PutError { why: format!("PUT {path}: {what}"), refused: true });
        match answer.status().as_u16() {
            // Vcycle says 200, Vac 201.
            200..=299 => Ok(()),
            403 => refused("403: the site does not take it from this machine"),
            404 => refused("404: the site does not know this machine"),
            code => Err(failed(format!("PUT {path}: {code}"))),
        }
    }
}

fn failed(why: String) -> PutError {
    PutError { why, refused: false }
}

/// A client for what begins with this URL.
///
/// # Errors
/// When URL and authorities do not fit together.
pub fn client(url: &str, trust: &Trust) -> Result<Client, SetupError> {
    let mut login = Login::default();
    if let Some((chain, key)) = trust.own.as_ref().filter(|_| url.starts_with("https:")) {
        let bad = |why| SetupError::BadLogin { key: "mjf.certificate", why };
        login.certificate = Some(login::certificate(chain, key).map_err(bad)?);
    }
    Client::with_login("mjf.ca", url, trust.ca.as_deref(), login, CONNECT, CONNECT)
}

/// One GET. Only a 2xx answer is a value; 404 and 410 say that there is none.
pub fn get(client: &Client, url: &str, limit: Duration) -> Fetched {
    let failed = |why: &dyn std::fmt::Display| Fetched::Failed(format!("GET {url}: {why}"));
    let request = match Request::get(url).header(header::ACCEPT, "text/plain, */*").body(None) {
        Ok(request) => request,
        Err(error) => return failed(&error),
    };
    match client.call(request, limit) {
        Err(error) => failed(&error),
        Ok(answer) => match answer.status().as_u16() {
            200..=299 => {
                let mut content = Vec::new();
                match answer.into_body().into_reader().take(LONGEST as u64).read_to_end(&mut content) {
                    Ok(_) => Fetched::Content(content),
                    Err(error) => failed(&error),
                }
            }
            404 | 410 => Fetched::Nothing,
            code => failed(&code),
        },
    }
}

fn read(place: &Place, path: &str) -> Fetched {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = file.and_then(|file| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut content = Vec::new();
        file.take(LONGEST as u64).read_to_end(&mut content)?;
        Ok(content)
    });
    match read {
        Ok(content) => Fetched::Content(content),
        // A directory that is not there was not mounted, and says nothing about its files.
        Err(error) if error.kind() == ErrorKind::NotFound && fs::metadata(place.to_string()).is_ok() => {
            Fetched::Nothing
        }
        Err(error) => Fetched::Failed(format!("{path}: {error}")),
    }
}

/// A reader sees the old or the new one, never a part.
fn write(path: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.new");
    // Who writes is root, and others may write there, too: neither a link nor a pipe of theirs is opened.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(content)?;
    // What is told as written is at the site, also where the machine is off in a moment.
    file.sync_data()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("victim"), "mine").unwrap();
        std::os::unix::fs::symlink(at("victim"), at("shutdown_message.new")).unwrap();
        let shelf = Shelf::new(Place::Directory(dir.path().display().to_string()), &Trust::default()).unwrap();
        shelf.put("shutdown_message", b"200 done", Duration::from_secs(1)).unwrap();
        assert_eq!(fs::read(at("victim")).unwrap(), b"mine");
        assert_eq!(fs::read(at("shutdown_message")).unwrap(), b"200 done");
        assert!(!fs::symlink_metadata(at("shutdown_message")).unwrap().is_symlink());
    }

    #[test]
    fn a_directory_that_is_away_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Place::Directory(dir.path().join(name).display().to_string());
        fs::create_dir(dir.path().join("mf")).unwrap();
        let limit = Duration::from_secs(1);
        let shelf = Shelf::new(place("mf"), &Trust::default()).unwrap();
        assert_eq!(shelf.get("total_cpu", limit), Fetched::Nothing);
        shelf.put("total_cpu", b"8\n", limit).unwrap();
        assert_eq!(shelf.get("total_cpu", limit), Fetched::Content(b"8\n".to_vec()));
        fs::create_dir(dir.path().join("mf/shutdowntime")).unwrap();
        assert!(matches!(shelf.get("shutdowntime", limit), Fetched::Failed(_)));
        fs::write(dir.path().join("mf/hs06"), vec![b'1'; 5000]).unwrap();
        assert_eq!(shelf.get("hs06", limit), Fetched::Content(vec![b'1'; LONGEST]));
        let away = Shelf::new(place("none"), &Trust::default()).unwrap();
        assert!(matches!(away.get("total_cpu", limit), Fetched::Failed(_)));
        let why = away.put("x", b"", limit).unwrap_err().to_string();
        assert!(why.ends_with("none/x: No such file or directory (os error 2)"), "{why}");
    }
}
