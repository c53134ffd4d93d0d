//! Certificates on disk, for tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use config::TlsFiles;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;

/// A certificate for `localhost` and its key, on disk.
pub struct Pair {
    folder: PathBuf,
    /// Where they are.
    pub files: TlsFiles,
    /// The first certificate, as a client that trusts it needs it.
    pub der: CertificateDer<'static>,
}

impl Pair {
    /// In a folder of that test's own.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lanyard-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (certificate, private_key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let made = made();
        let der = made.cert.der().clone();
        let pair = Self { folder, files: TlsFiles { certificate, private_key }, der };
        pair.write(&made.cert.pem(), &made.signing_key.serialize_pem());
        pair
    }

    /// Replaces both files.
    pub fn write(&self, certificate: &str, key: &str) {
        fs::write(&self.files.certificate, certificate).unwrap();
        fs::write(&self.files.private_key, key).unwrap();
        fs::set_permissions(&self.files.private_key, Permissions::from_mode(0o640)).unwrap();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Another certificate for `localhost`.
pub fn made() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}
