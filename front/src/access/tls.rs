//! The certificate by which clients know the robot, and its private key.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, bail};
use config::TlsFiles;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

/// What is spoken inside TLS, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS with the certificate as it is now.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When they cannot be read, do not belong together, or others can read the private key.
    pub fn load(files: &TlsFiles) -> anyhow::Result<Self> {
        Ok(Self { files: files.clone(), current: RwLock::new(read(files)?) })
    }

    /// What the next client is met with; those that are in keep what they have.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Reads the files again. A pair that is not whole, as while the second file is still to be replaced, changes
    /// nothing.
    pub fn reload(&self) {
        match read(&self.files) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                info!("{}: new connections get the new certificate", self.files.certificate.display());
            }
            Err(wrong) => error!("{wrong:#}. The certificate stays as it was"),
        }
    }
}

fn read(files: &TlsFiles) -> anyhow::Result<Arc<ServerConfig>> {
    let TlsFiles { certificate, private_key } = files;
    let text = fs::read(certificate)
        .with_context(|| format!("{}: cannot read the certificate", certificate.display()))?;
    let chain: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.with_context(|| format!("{}: no certificates in PEM", certificate.display()))?;
    if chain.is_empty() {
        bail!("{}: there is no certificate in PEM in it", certificate.display());
    }
    let key = PrivateKeyDer::from_pem_slice(&secret(private_key)?)
        .with_context(|| format!("{}: there is no private key in PEM in it", private_key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS without versions")?
        .with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).with_context(|| {
        format!("{} and {} do not belong together", certificate.display(), private_key.display())
    })?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A file that only its owner and group may read.
fn secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || -> io::Result<(u32, Vec<u8>)> {
        let mut file = File::open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((file.metadata()?.mode() & 0o777, bytes))
    };
    let (mode, bytes) = read().with_context(|| format!("{}: cannot read the private key", path.display()))?;
    if mode & 0o007 != 0 {
        let path = path.display();
        bail!(
            "{path}: everybody can read the private key (mode {mode:o}); make a new one, or `chmod 640 {path}`"
        );
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::Tls;
    use crate::access::testing::{Pair, made};

    fn wrong(pair: &Pair) -> String {
        format!("{:#}", Tls::load(&pair.files).unwrap_err())
    }

    #[test]
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let pair = Pair::new("reload");
        let tls = Tls::load(&pair.files).unwrap();
        let current = || Arc::as_ptr(tls.acceptor().config());
        let first = current();
        let (next, unrelated) = (made(), made());
        for (certificate, key) in [
            (next.cert.pem(), unrelated.signing_key.serialize_pem()),
            (next.cert.pem(), String::new()),
            (String::new(), next.signing_key.serialize_pem()),
        ] {
            pair.write(&certificate, &key);
            tls.reload();
            assert_eq!(current(), first, "half a pair was taken");
        }
        pair.write(&next.cert.pem(), &next.signing_key.serialize_pem());
        tls.reload();
        assert_ne!(current(), first);
    }

    #[test]
    fn mistakes_name_the_file() {
        let pair = Pair::new("mistakes");
        let (good, other) = (made(), made());
        pair.write("nothing", &good.signing_key.serialize_pem());
        assert!(wrong(&pair).contains("cert.pem: there is no certificate"), "{}", wrong(&pair));
        pair.write(&good.cert.pem(), "nothing");
        assert!(wrong(&pair).contains("key.pem: there is no private key"), "{}", wrong(&pair));
        pair.write(&good.cert.pem(), &other.signing_key.serialize_pem());
        assert!(wrong(&pair).contains("do not belong together"), "{}", wrong(&pair));
        pair.write(&good.cert.pem(), &good.signing_key.serialize_pem());
        fs::set_permissions(&pair.files.private_key, Permissions::from_mode(0o644)).unwrap();
        assert!(wrong(&pair).contains("everybody can read the private key (mode 644)"), "{}", wrong(&pair));
        fs::remove_file(&pair.files.private_key).unwrap();
        assert!(wrong(&pair).contains("key.pem: cannot read the private key"), "{}", wrong(&pair));
    }
}
