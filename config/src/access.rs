//! Who may call, and how the way to the front is protected: keys, TLS, and what is open on purpose.

use std::path::PathBuf;
use std::time::Duration;

use crate::Exposure;
use crate::exposure::exposure;
use crate::reader::{Problems, Reader};

/// The keys of `[front]` that are read here.
pub const KEYS: [&str; 5] = ["certificate", "private_key", "keys", "insecure", "token_lifetime"];

/// Where the keys of clients lie unless the configuration says otherwise.
pub const DEFAULT_KEYS: &str = "/etc/lanyard/keys.toml";

/// A working day and a night: a token that was copied somewhere, and is not used, is worthless on the next day.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// A client needs a moment between its login and its first call.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
/// A month: after that nobody remembers who logged in where.
const LONGEST_LIFETIME: Duration = Duration::from_secs(31 * 24 * 3_600);

/// Who may call.
#[derive(Clone, Debug)]
pub struct Access {
    /// `certificate`, `private_key`: TLS, if there is any.
    pub tls: Option<TlsFiles>,
    /// `keys`: the file of clients' keys; without one in it nobody has to log in.
    pub keys: PathBuf,
    /// `insecure`.
    pub exposure: Exposure,
    /// `token_lifetime`: how long a login is good for after it was used last.
    pub token_lifetime: Duration,
}

/// The files of TLS, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `certificate`: the server's, then those that vouch for it.
    pub certificate: PathBuf,
    /// `private_key`: the certificate's.
    pub private_key: PathBuf,
}

pub(crate) fn access(table: &mut Reader<'_>, problems: &mut Problems) -> Access {
    let certificate = path(table, problems, "certificate");
    let private_key = path(table, problems, "private_key");
    let mut lonely = |key: &str, other: &str| {
        let what =
            format!("{}: \"{key}\" and \"{other}\" belong together; \"{other}\" is missing", table.title);
        problems.note(table.span(), what);
    };
    let tls = match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => Some(TlsFiles { certificate, private_key }),
        (None, None) => None,
        (Some(_), None) => {
            lonely("certificate", "private_key");
            None
        }
        (None, Some(_)) => {
            lonely("private_key", "certificate");
            None
        }
    };
    Access {
        tls,
        keys: path(table, problems, "keys").unwrap_or_else(|| PathBuf::from(DEFAULT_KEYS)),
        exposure: exposure(table, problems),
        token_lifetime: table.duration(
            problems,
            "token_lifetime",
            SHORTEST_LIFETIME..=LONGEST_LIFETIME,
            TOKEN_LIFETIME,
        ),
    }
}

/// An absolute path: what a relative one means depends on who reads it, and a file of keys that is not found
/// where it was meant would let everybody in.
fn path(table: &mut Reader<'_>, problems: &mut Problems, key: &str) -> Option<PathBuf> {
    let (span, text) = table.text(problems, key)?;
    let path = PathBuf::from(&text);
    if path.is_absolute() {
        return Some(path);
    }
    problems.note(span, format!("{}: \"{key}\" must be an absolute path, not \"{text}\"", table.title));
    None
}
