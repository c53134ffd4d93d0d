//! What is not served to other computers unless the configuration says that it is meant so.

use anyhow::bail;
use config::{Config, Exposure, Logins};
use keys::Keys;
use tracing::warn;

/// Whether the front may start like this.
///
/// # Errors
///
/// When other computers could drive the robot without a key, or read the keys or passwords that go by.
pub fn check(config: &Config, keys: &Keys) -> anyhow::Result<()> {
    let logins = if keys.is_empty() { Logins::None } else { Logins::Required };
    for port in config.ports() {
        let Some(danger) = config.danger(&port, logins) else { continue };
        match port.exposure {
            Exposure::Refused => bail!("{port}: {danger}. {}", danger.remedy()),
            Exposure::Insecure => warn!("INSECURE: {port}: {danger}; insecure = true"),
        }
    }
    Ok(())
}
