//! The parts of viam-server's configuration that mean something here; all others by name only.

use std::collections::BTreeMap;

use anyhow::anyhow;
use serde::Deserialize;
use serde_json::Value;

use super::duration::HeartbeatWindow;

/// Whatever has a name of its own and is not read.
type Rest = BTreeMap<String, Value>;

/// A robot.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Robot {
    /// How clients reach it.
    pub network: Option<Network>,
    /// Who may.
    pub auth: Option<Auth>,
    /// Its parts.
    pub components: Option<Vec<Component>>,
    /// Where in Viam's cloud it belongs; only whether it does is of interest.
    pub cloud: Option<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `network`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Where viam-server listens.
    pub bind_address: Option<String>,
    /// Its certificate.
    pub tls_cert_file: Option<String>,
    /// The certificate's private key.
    pub tls_key_file: Option<String>,
    /// No TLS, even if it belongs to the cloud.
    pub no_tls: Option<bool>,
    /// `sessions`.
    pub sessions: Option<Sessions>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `network.sessions`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sessions {
    /// How long a client may be silent.
    pub heartbeat_window: Option<HeartbeatWindow>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `auth`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// The ways to say who one is.
    pub handlers: Option<Vec<Handler>>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One of `auth.handlers`.
#[derive(Debug, Deserialize)]
pub struct Handler {
    /// The type of credentials.
    pub r#type: String,
    /// Its settings, secrets among them.
    #[serde(default)]
    pub config: Option<Rest>,
}

impl Handler {
    /// The ids of its API keys. The older form, a list of keys without ids, has none.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        let names = self.config.iter().flat_map(BTreeMap::keys);
        names.map(String::as_str).filter(|name| !matches!(*name, "key" | "keys"))
    }
}

/// One of `components`.
#[derive(Debug, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// `rdk:component:motor`; the newer way to say what it is.
    #[serde(default)]
    pub api: Option<String>,
    /// `motor`; the older way.
    #[serde(default)]
    pub r#type: Option<String>,
    /// What makes it work.
    #[serde(default)]
    pub model: Option<String>,
    /// The model's settings.
    #[serde(default)]
    pub attributes: Option<Rest>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Component {
    /// The kind: `motor`, `base`, `camera`; empty if the file does not say.
    pub fn kind(&self) -> &str {
        let api = self.api.as_deref().and_then(|api| api.rsplit(':').next());
        api.or(self.r#type.as_deref()).unwrap_or_default()
    }

    /// Its model in full; a bare name is one of viam-server's own.
    pub fn model(&self) -> String {
        match self.model.as_deref() {
            None | Some("") => "no model".to_owned(),
            Some(model) if model.contains(':') => model.to_owned(),
            Some(model) => format!("rdk:builtin:{model}"),
        }
    }

    /// The value of one of the model's settings.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.as_ref()?.get(name).filter(|value| !value.is_null())
    }
}

impl Robot {
    /// Reads the JSON; `from` is for messages.
    ///
    /// # Errors
    ///
    /// With line and column, for text that is no JSON or holds something else where viam-server has its settings.
    pub fn parse(from: &str, json: &str) -> anyhow::Result<Self> {
        serde_json::from_str(json).map_err(|error| {
            let text = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = text.strip_suffix(&place).unwrap_or(&text);
            anyhow!("{from}:{}:{}: {what}", error.line(), error.column())
        })
    }
}
