//! What is not served to other computers unless the configuration says that it is meant so.

use anyhow::bail;
use config::{Exposure, Front, Logins};
use keys::Keys;
use tracing::warn;

/// Whether the front may start like this.
///
/// # Errors
///
/// When other computers could drive the robot without a key, or read the keys that go by.
pub fn check(front: &Front, keys: &Keys) -> anyhow::Result<()> {
    let logins = if keys.is_empty() { Logins::None } else { Logins::Required };
    let Some(danger) = front.danger(logins) else { return Ok(()) };
    match front.access.exposure {
        Exposure::Refused => bail!("[front] listen = \"{}\": {danger}. {}", front.listen, danger.remedy()),
        Exposure::Insecure => {
            warn!("INSECURE: [front] listen = \"{}\": {danger}; insecure = true", front.listen);
            Ok(())
        }
    }
}
