//! What a job leaves as its result.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use thiserror::Error;

/// Why a result cannot be taken.
#[derive(Debug, Error)]
pub enum ResultError {
    /// It cannot be opened or read; a symbolic link is not followed.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The kernel's word.
        error: io::Error,
    },
    /// A directory, a pipe, a socket.
    #[error("{path} is no regular file")]
    Irregular {
        /// The file.
        path: String,
    },
    /// Larger than a token may be.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// Bytes.
        limit: usize,
    },
}

/// Reads a result of at most `limit` bytes; one that is not there is empty. Only after the job's last process has ended.
///
/// # Errors
/// A result that is no regular file, is too large or cannot be read.
pub fn take(path: &str, limit: usize) -> Result<Vec<u8>, ResultError> {
    let failed = |error: io::Error| ResultError::File { path: path.to_owned(), error };
    // The directory is the payload's: what lies there may be a link to anything, or a pipe that never ends.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ResultError::Irregular { path: path.to_owned() });
    }
    let mut result = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut result).map_err(failed)?;
    if result.len() > limit {
        return Err(ResultError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_a_regular_file_of_the_right_size_is_a_result() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!(take(&path("none"), 3).unwrap(), b"");
        fs::write(path("good"), "abc").unwrap();
        assert_eq!(take(&path("good"), 3).unwrap(), b"abc");
        assert!(matches!(take(&path("good"), 2), Err(ResultError::TooLarge { limit: 2, .. })));
        symlink(path("good"), path("link")).unwrap();
        let refused = take(&path("link"), 3).unwrap_err();
        assert!(matches!(&refused, ResultError::File { error, .. } if error.raw_os_error() == Some(libc::ELOOP)));
        fs::create_dir(path("dir")).unwrap();
        nix::unistd::mkfifo(path("pipe").as_str(), Mode::S_IRWXU).unwrap();
        for name in ["dir", "pipe"] {
            assert!(matches!(take(&path(name), 3), Err(ResultError::Irregular { .. })), "{name}");
        }
    }
}
